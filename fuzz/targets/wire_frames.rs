//! Frames between agents and the controller, and between agents, of both
//! directions.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use tokio_util::codec::Decoder as _;
use wire::{
    data::{KeeperCodec, ShipperCodec},
    frame::ControlCodec,
    message::{AgentMessage, ControllerMessage},
};

/// With a right header in front, so that the message is reached.
fn framed(magic: &[u8], kind: u8, payload: &[u8]) -> BytesMut {
    let mut frame = BytesMut::from(magic);
    frame.extend_from_slice(&[wire::frame::VERSION, kind, 0, 0]);
    frame.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    frame.extend_from_slice(payload);
    frame
}

fuzz_target!(|bytes: &[u8]| {
    let mut at_controller = ControlCodec::<ControllerMessage, AgentMessage>::for_stranger();
    let mut at_agent = ControlCodec::<AgentMessage, ControllerMessage>::default();
    for mut input in [BytesMut::from(bytes), framed(b"LBWF", 1, bytes)] {
        let mut copy = input.clone();
        while let Ok(Some(_)) = at_controller.decode(&mut input) {}
        while let Ok(Some(_)) = at_agent.decode(&mut copy) {}
    }
    for kind in 1..5 {
        let mut input = framed(b"LBDF", kind, bytes);
        let mut copy = input.clone();
        while let Ok(Some(_)) = KeeperCodec::default().decode(&mut input) {}
        while let Ok(Some(_)) = ShipperCodec::default().decode(&mut copy) {}
    }
});
