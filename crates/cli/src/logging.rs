//! Where the roles' log goes: standard error, which systemd keeps.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Begins logging. `LIFEBOAT_LOG` narrows or widens it, such as `debug` or
/// `controller=debug,info`; JSON lines for programs.
pub(crate) fn start(json: bool) {
    let filter = EnvFilter::builder()
        .with_default_directive(tracing::Level::INFO.into())
        .with_env_var("LIFEBOAT_LOG")
        .from_env_lossy();
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    if json {
        log.json().init();
    } else {
        log.init();
    }
}
