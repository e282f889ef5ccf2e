//! The `lifeboat` binary: every role and every command.
//!
//! Roles run with `lifeboat controller run` and `lifeboat agent run`;
//! `lifeboat store` works on a folder, with nobody else's help. All other
//! commands are a thin client of the controller's REST API; what may be done
//! now, and why not, comes from there. One file per noun, in [`nouns`].

use std::process::ExitCode;

use clap::Parser as _;

mod arguments;
mod client;
mod confirm;
mod explain;
mod failure;
mod logging;
mod nouns;
mod output;
mod settings;

use arguments::{Arguments, Command};
use failure::Failure;
use nouns::{
    adopt, agent, audit, cloud, controller, event, failover, health, host, job, machine, network,
    point, policy, pool, protect, protected, site, store, token, verify,
};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let json = arguments.json;
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    // The cryptography of every TLS connection; only one is compiled in.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let result = runtime.block_on(run(arguments));
    // A call into a library that hangs must not keep the process.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print(json);
            failure.exit_code()
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Failure> {
    let session = client::Session { settings: arguments.connection, json: arguments.json };
    match arguments.command {
        Command::Controller(command) => controller::run(command, arguments.json).await,
        Command::Agent(command) => agent::run(command, arguments.json).await,
        Command::Site(command) => site::run(command, &session).await,
        Command::Cloud(command) => cloud::run(command, &session).await,
        Command::Host(command) => host::run(command, &session).await,
        Command::Machine(command) => machine::run(command, &session).await,
        Command::Network(command) => network::run(command, &session).await,
        Command::Pool(command) => pool::run(command, &session).await,
        Command::Policy(command) => policy::run(command, &session).await,
        Command::Protect(arguments) => protect::run(arguments, &session).await,
        Command::Protected(command) => protected::run(command, &session).await,
        Command::Failover(command) => failover::run(command, &session).await,
        Command::Reverse(arguments) => failover::reverse(arguments, &session).await,
        Command::Event(command) => event::run(command, &session).await,
        Command::Job(command) => job::run(command, &session).await,
        Command::Point(command) => point::run(command, &session).await,
        Command::Verify(arguments) => verify::run(arguments, &session).await,
        Command::Adopt(arguments) => adopt::run(arguments, &session).await,
        Command::Token(command) => token::run(command, &session).await,
        Command::Audit(command) => audit::run(command, &session).await,
        Command::Health => health::run(&session).await,
        Command::Store(arguments) => Box::pin(store::run(arguments, session.json)).await,
        Command::Explain { code } => explain::run(&code, arguments.json),
        Command::Completion { shell } => {
            arguments::print_completion(shell);
            Ok(())
        }
    }
}
