//! The agent: one on each host, the same at both sites.
//!
//! It sees what its host has ([`hypervisor`]), becomes a host of a controller
//! by a one-time token ([`enrol`]), and from then on keeps a connection open
//! on which it tells what it sees ([`connection`]). All traffic goes outwards.
//!
//! | looking for | module |
//! | --- | --- |
//! | settings | [`config`] |
//! | who this host is, on disk | [`identity`] |
//! | becoming a host | [`enrol`] |
//! | the connection, its retries, the certificate's renewal | [`connection`] |
//! | what `lifeboat agent status` shows | [`status`] |
//! | libvirt | [`hypervisor`] |
//! | what it is to do in replication | [`duties`] |
//! | what another controller must know to go on | [`heritage`] |
//! | a machine's changes | [`capture`] |
//! | sending them to another host | [`ship`] |
//! | keeping another host's points | [`keep`] |
//! | what the controller has it do at once | [`commands`] |
//! | machines from points | [`recover`] |
//! | whose machines are | [`epochs`] |
//! | the port for other agents | [`peer`] |
//! | all of it at work | [`run`] |

pub mod backoff;
pub mod capture;
pub mod commands;
mod compression;
pub mod config;
pub mod connection;
pub mod duties;
pub mod enrol;
pub mod epochs;
pub mod heritage;
pub mod hypervisor;
pub mod identity;
pub mod keep;
pub mod peer;
pub mod recover;
pub mod run;
pub mod ship;
pub mod status;
