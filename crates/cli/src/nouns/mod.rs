//! One file per noun: its verbs, and how it is shown.

pub(crate) mod agent;
pub(crate) mod audit;
pub(crate) mod cloud;
pub(crate) mod controller;
pub(crate) mod health;
pub(crate) mod host;
pub(crate) mod machine;
pub(crate) mod network;
pub(crate) mod pool;
pub(crate) mod site;
pub(crate) mod token;
