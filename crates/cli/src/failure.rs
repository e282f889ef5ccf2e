//! What the user is told when a command fails, and the exit code.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use api::problem::Problem;
use domain::fault::Fault;

/// A command that failed.
#[derive(Debug)]
pub(crate) struct Failure(Problem);

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self(fault.into())
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl Failure {
    /// Tells the user, on standard error.
    pub(crate) fn print(&self, json: bool) {
        let Problem { code, doing, cause, advice } = &self.0;
        if json {
            let text = serde_json::to_string(&self.0).expect("a problem is plain");
            eprintln!("{text}");
            return;
        }
        let (red, bold, plain) = if std::io::stderr().is_terminal() {
            ("\x1b[31;1m", "\x1b[1m", "\x1b[0m")
        } else {
            ("", "", "")
        };
        eprintln!("{red}error[{code}]{plain}{bold}: cannot {doing}{plain}");
        eprintln!("  cause:  {cause}");
        eprintln!("  advice: {advice}");
    }

    /// See the list in `lifeboat --help`.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.exit_number())
    }

    /// The same as a number.
    pub(crate) fn exit_number(&self) -> u8 {
        exit_number(&self.0.code)
    }
}

fn exit_number(code: &str) -> u8 {
    match code {
        "LB4003" | "LB4004" | "LB5002" | "LB5003" | "LB7053" => 3,
        "LB3001" | "LB3002" | "LB3003" | "LB3004" | "LB3005" | "LB3006" | "LB3007" | "LB3009"
        | "LB3010" | "LB3011" | "LB4005" | "LB4006" | "LB4007" | "LB4008" | "LB5004" | "LB5007"
        | "LB5008" | "LB5010" | "LB5015" | "LB6001" | "LB6002" | "LB6051" | "LB6052" | "LB6054"
        | "LB7050" | "LB7051" | "LB7052" | "LB7055" | "LB7060" | "LB7061" | "LB7062" => 4,
        "LB4001" | "LB4002" => 5,
        "LB2002" | "LB3008" | "LB4009" | "LB6003" | "LB6050" | "LB7065" => 6,
        "LB1001" | "LB1002" | "LB1003" | "LB1004" | "LB1005" | "LB2001" | "LB4010" | "LB5001"
        | "LB5009" | "LB5017" | "LB5018" => 7,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::exit_number;
    use domain::fault::Code;

    #[test]
    fn every_code_has_an_exit_code_that_is_no_success_and_no_usage_error() {
        for code in Code::ALL {
            assert!(!matches!(exit_number(code.as_str()), 0 | 2), "{code}");
        }
        assert_eq!(exit_number(Code::NotFound.as_str()), 3);
        assert_eq!(exit_number(Code::AddressUnusable.as_str()), 7);
        assert_eq!(exit_number(Code::Internal.as_str()), 1);
    }
}
