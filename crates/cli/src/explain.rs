//! The pages of `docs/errors/`, which the binary carries.

use domain::fault::{Code, Fault};
use include_dir::{Dir, include_dir};

use crate::failure::Failure;
use crate::output;

static PAGES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../docs/errors");

pub(crate) fn run(code: &str, json: bool) -> Result<(), Failure> {
    let code = code.to_uppercase();
    let page = PAGES.get_file(format!("{code}.md")).and_then(include_dir::File::contents_utf8);
    let Some(page) = page else {
        return Err(Fault::new(
            Code::NotFound,
            format!("explain {code}"),
            "there is no such error code",
            "Codes are LB and four digits, as errors show them in brackets.",
        )
        .into());
    };
    if json {
        output::json(&serde_json::json!({ "code": code, "page": page }));
    } else {
        print!("{page}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_page_and_every_page_a_code() {
        let mut pages: Vec<String> = PAGES
            .files()
            .filter_map(|file| Some(file.path().file_stem()?.to_string_lossy().into_owned()))
            .collect();
        pages.sort();
        let codes: Vec<String> = Code::ALL.iter().map(ToString::to_string).collect();
        assert_eq!(pages, codes);
    }

    #[test]
    fn every_page_says_what_happened_and_what_to_do() {
        for file in PAGES.files() {
            let text = file.contents_utf8().unwrap_or_default();
            for heading in ["## What happened", "## What to do"] {
                assert!(text.contains(heading), "{} lacks {heading}", file.path().display());
            }
        }
    }
}
