//! Lists: as a table, JSON or YAML.

use clap::ValueEnum;
use ringmesh_tuning::{errln, out, outln};
use serde::Serialize;

use super::failure::Failure;

/// How to print a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// Columns for people.
    #[default]
    Table,
    /// JSON for machines.
    Json,
    /// YAML.
    Yaml,
}

/// Prints `items`: as they are, or as rows under `columns`.
pub(super) fn print<T: Serialize>(
    output: Output,
    items: &[T],
    columns: &[&str],
    row: impl Fn(&T) -> Vec<String>,
    none: &str,
) -> Result<(), Failure> {
    match output {
        Output::Table if items.is_empty() => errln!("{none}"),
        Output::Table => out!("{}", table(columns, items.iter().map(row).collect())),
        Output::Json | Output::Yaml => structured(output, &items)?,
    }
    Ok(())
}

/// Prints one value as JSON or YAML.
pub(super) fn structured<T: Serialize>(output: Output, value: &T) -> Result<(), Failure> {
    let failed = |e: String| Failure::failed(e);
    if output == Output::Yaml {
        let text = serde_saphyr::to_string(value).map_err(|e| failed(e.to_string()))?;
        outln!("{}", text.trim_end());
    } else {
        let text = serde_json::to_string_pretty(value).map_err(|e| failed(e.to_string()))?;
        outln!("{text}");
    }
    Ok(())
}

/// Columns as wide as their widest cell; the last is not padded.
pub(super) fn table(columns: &[&str], rows: Vec<Vec<String>>) -> String {
    let head = columns.iter().map(|c| (*c).to_owned()).collect();
    let all: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| {
        let cells = all.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let mut out = String::new();
    for row in &all {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let blank = width - cell.chars().count();
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', blank + 2));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::table;

    #[test]
    fn columns_line_up_and_lines_have_no_tail() {
        let rows = vec![
            vec!["reviews".into(), "ACTIVE".into()],
            vec!["é".into(), String::new()],
        ];
        assert_eq!(
            table(&["NAME", "STATUS"], rows),
            "NAME     STATUS\nreviews  ACTIVE\né\n"
        );
    }
}
