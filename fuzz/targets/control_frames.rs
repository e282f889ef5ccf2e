//! Frames between agents and the controller, of both directions.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use tokio_util::codec::Decoder as _;
use wire::{
    frame::ControlCodec,
    message::{AgentMessage, ControllerMessage},
};

/// With a right header in front, so that the message is reached.
fn framed(payload: &[u8]) -> BytesMut {
    let mut frame = BytesMut::from(&b"LBWF"[..]);
    frame.extend_from_slice(&[wire::frame::VERSION, 1, 0, 0]);
    frame.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    frame.extend_from_slice(payload);
    frame
}

fuzz_target!(|bytes: &[u8]| {
    let mut at_controller = ControlCodec::<ControllerMessage, AgentMessage>::for_stranger();
    let mut at_agent = ControlCodec::<AgentMessage, ControllerMessage>::default();
    for mut input in [BytesMut::from(bytes), framed(bytes)] {
        let mut copy = input.clone();
        while let Ok(Some(_)) = at_controller.decode(&mut input) {}
        while let Ok(Some(_)) = at_agent.decode(&mut copy) {}
    }
});
