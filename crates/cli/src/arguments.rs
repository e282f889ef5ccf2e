//! What can be said on the command line.

use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

use crate::nouns::{
    Look, adopt, agent, audit, cloud, controller, event, failover, host, job, point, policy,
    protect, protected, site, store, token, verify,
};
use crate::settings::Connection;

/// Site recovery for virtual machines and servers.
#[derive(Debug, Parser)]
#[command(name = "lifeboat", version, propagate_version = true, after_help = EXIT_CODES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// Print JSON, for programs; errors too, to standard error
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Sites: places that can be lost as a whole
    #[command(subcommand)]
    Site(site::Command),
    /// Clouds: named groups of hosts inside a site
    #[command(subcommand)]
    Cloud(cloud::Command),
    /// Hosts: machines with an agent
    #[command(subcommand)]
    Host(host::Command),
    /// Virtual machines of all hosts
    #[command(subcommand)]
    Machine(Look),
    /// Virtual networks of all hosts
    #[command(subcommand)]
    Network(Look),
    /// Storage pools of all hosts
    #[command(subcommand)]
    Pool(Look),
    /// Policies: how machines are protected
    #[command(subcommand)]
    Policy(policy::Command),
    /// Protect a machine: keep recovery points of it at another host
    Protect(protect::Arguments),
    /// Protected machines
    #[command(subcommand)]
    Protected(protected::Command),
    /// Bring a machine to the other side: as a test, planned, or unplanned; commit it or undo it
    #[command(subcommand)]
    Failover(failover::Command),
    /// Replicate a machine that was failed over back to where it ran before
    Reverse(failover::Reverse),
    /// What changed about protected machines
    #[command(subcommand)]
    Event(event::Command),
    /// Jobs: anything that takes time
    #[command(subcommand)]
    Job(job::Command),
    /// Recovery points of protected machines
    #[command(subcommand)]
    Point(point::Command),
    /// Compare a protected machine with its replica, and print the report
    Verify(verify::Arguments),
    /// Go on with what a lost controller left with its hosts, which were enrolled here with
    /// --take-over
    Adopt(adopt::Arguments),
    /// Tokens: who may use the API, and who may become a host
    #[command(subcommand)]
    Token(token::Command),
    /// The audit log
    #[command(subcommand)]
    Audit(audit::Command),
    /// Whether the controller is well
    Health,
    /// Run or look after the controller
    #[command(subcommand)]
    Controller(controller::Command),
    /// Run or look after this host's agent
    #[command(subcommand)]
    Agent(agent::Command),
    /// A store's folder itself, without controller or agent: when all else is gone
    Store(store::Arguments),
    /// Explain an error code, such as LB3002
    Explain {
        /// The code
        code: String,
    },
    /// Print completions for a shell
    Completion {
        /// The shell
        shell: Shell,
    },
}

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed for a reason of its own; the error says which
  2  the command line makes no sense
  3  there is no such thing, or more than one
  4  refused: the state or the request does not allow it
  5  the token is missing, unknown, or may not do this
  6  the controller or the hypervisor does not answer
  7  the configuration, an address or a folder cannot be used";

pub(crate) fn print_completion(shell: Shell) {
    clap_complete::generate(shell, &mut Arguments::command(), "lifeboat", &mut std::io::stdout());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }
}
