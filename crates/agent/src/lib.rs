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
//! | a machine's changes | [`capture`] |
//! | all of it at work | [`run`] |

pub mod backoff;
pub mod capture;
pub mod config;
pub mod connection;
pub mod enrol;
pub mod hypervisor;
pub mod identity;
pub mod run;
pub mod status;
