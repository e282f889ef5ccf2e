//! Asking before something is taken away.

use std::io::{IsTerminal as _, Write as _};

use domain::fault::{Code, Fault};

use crate::failure::Failure;

/// Has the user type the name of what is about to be lost, unless `--yes`.
pub(crate) fn confirm(doing: &str, name: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    let refuse = |cause: &str| -> Failure {
        Fault::new(
            Code::RequestInvalid,
            doing,
            cause,
            format!("Type {name} when asked, or give --yes if you are a program."),
        )
        .into()
    };
    if !std::io::stdin().is_terminal() {
        return Err(refuse("nobody is there to confirm it"));
    }
    eprint!("About to {doing}. Type {name} to go on: ");
    let _ = std::io::stderr().flush();
    let mut typed = String::new();
    match std::io::stdin().read_line(&mut typed) {
        Ok(_) if typed.trim() == name => Ok(()),
        Ok(_) | Err(_) => Err(refuse("it was not confirmed; nothing was changed")),
    }
}
