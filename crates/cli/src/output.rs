//! Tables for people, JSON for programs.

use api::{List, Operation};
use comfy_table::{ContentArrangement, Table, presets};
use domain::units::utc;
use serde::Serialize;
use time::OffsetDateTime;

/// Prints what a program reads.
pub(crate) fn json(value: &impl Serialize) {
    println!("{}", serde_json::to_string_pretty(value).expect("views are plain"));
}

/// Prints a list: JSON, a table, or a line that says that there is nothing.
pub(crate) fn list<T: Serialize>(
    as_json: bool,
    list: &List<T>,
    nothing: &str,
    columns: &[&str],
    row: impl Fn(&T) -> Vec<String>,
) {
    if as_json {
        return json(list);
    }
    if list.items.is_empty() {
        // To standard error: there is nothing for a pipe.
        eprintln!("{nothing}");
        return;
    }
    let mut table = plain_table();
    table.set_header(columns.iter().copied());
    for item in &list.items {
        table.add_row(row(item));
    }
    print_table(&table);
}

/// Prints one item: JSON, or its fields on lines of their own. Fields with
/// several lines are indented.
pub(crate) fn item<T: Serialize>(as_json: bool, item: &T, fields: &[(&str, String)]) {
    if as_json {
        return json(item);
    }
    let width = fields.iter().map(|(label, _)| label.len()).max().unwrap_or_default() + 2;
    for (label, value) in fields {
        let mut lines = value.lines();
        println!("{label:<width$}{}", lines.next().unwrap_or("-"));
        for line in lines {
            println!("{:<width$}{line}", "");
        }
    }
}

/// Prints a word about something that was done, or the item as JSON.
pub(crate) fn done(as_json: bool, item: &impl Serialize, words: &str) {
    if as_json {
        json(item);
    } else {
        println!("{words}");
    }
}

/// What may be done to an item, and why not, line by line.
pub(crate) fn operations(operations: &[Operation]) -> String {
    let line = |operation: &Operation| match &operation.refused {
        None => operation.name.clone(),
        Some(why) => format!("{} (not now: {}. {})", operation.name, why.reason, why.advice),
    };
    operations.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// A table inside an item's field.
pub(crate) fn inner_table(columns: &[&str], rows: Vec<Vec<String>>) -> String {
    if rows.is_empty() {
        return "none".into();
    }
    let mut table = plain_table();
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(columns.iter().copied());
    for row in rows {
        table.add_row(row);
    }
    trimmed(&table)
}

fn plain_table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table
}

fn print_table(table: &Table) {
    println!("{}", trimmed(table));
}

/// Without the padding at both ends of each line.
fn trimmed(table: &Table) -> String {
    let lines: Vec<String> = table
        .lines()
        .map(|line| line.strip_prefix(' ').unwrap_or(&line).trim_end().to_owned())
        .collect();
    lines.join("\n")
}

/// A time and how long ago it was.
pub(crate) fn since(at: OffsetDateTime) -> String {
    format!("since {} ({} ago)", utc(at), ago(OffsetDateTime::now_utc() - at))
}

/// A span of time in its largest unit.
pub(crate) fn ago(span: time::Duration) -> String {
    let seconds = span.whole_seconds().max(0);
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// `yes` or `no`.
pub(crate) fn yes(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}

/// A value, or a dash for none.
pub(crate) fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_told_in_their_largest_unit() {
        let told = [-5, 0, 119, 120, 7199, 7200, 172_800].map(|s| ago(time::Duration::seconds(s)));
        assert_eq!(told, ["0 s", "0 s", "119 s", "2 min", "119 min", "2 h", "2 days"]);
    }
}
