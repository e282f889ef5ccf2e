//! What the long-running roles, controller and agent, stand on: their
//! [settings] and a [folder] that one process holds at a time.

pub mod folder;
pub mod settings;
