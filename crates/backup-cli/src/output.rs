//! Results to stdout.

use std::io::{self, Write};

use crate::exit::{Answer, Exit};

/// Prints the answer. A reader that went away (`| head`) is no failure; a full disk is.
pub(crate) fn print(answer: &Answer, json: bool) -> Exit {
    let mut out = io::stdout().lock();
    let written = if json {
        serde_json::to_writer(&mut out, &answer.json)
            .map_err(io::Error::from)
            .and_then(|()| out.write_all(b"\n"))
    } else {
        out.write_all(answer.text.as_bytes())
    }
    .and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            say(&format!("stdout cannot be written: {error}"));
            match answer.exit {
                Exit::Ok => Exit::Failed,
                other => other,
            }
        }
        _ => answer.exit,
    }
}

/// One line for stderr. Nothing can be done about a stderr that is closed.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stderr(), "lifebelt: {line}");
}

/// `1 part`, `2 parts`.
pub(crate) fn count(number: impl Into<u64>, what: &str) -> String {
    let number = number.into();
    match number {
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    }
}

/// Columns as wide as they need to be; the last one ends where it ends.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new<const N: usize>(head: [&str; N]) -> Self {
        Self {
            rows: vec![head.map(str::to_owned).to_vec()],
        }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(&format!("{cell:<width$}  "));
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(["ID", "SIZE"]);
        table.row(["a-long-id".into(), "1 B".into()]);
        assert_eq!(table.to_string(), "ID         SIZE\na-long-id  1 B\n");
    }
}
