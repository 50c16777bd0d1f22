//! The live table as lines of text: pure.

use std::time::Duration;

/// One workload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Row {
    pub name: String,
    pub state: State,
    /// The beginning of the digest of the newest version; of several components, of each.
    pub digest: String,
    pub requests: u64,
    pub failures: u64,
    /// Since the version that answers does.
    pub age: Option<Duration>,
    /// Where it answers.
    pub url: String,
}

/// How a workload is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum State {
    #[default]
    Running,
    /// It is on its way; the word says how far.
    Working(&'static str),
    /// What was to run does not, for this reason; and whether what ran before goes on.
    Failed(String, bool),
}

/// The room that there is, and whether to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Canvas {
    pub width: usize,
    pub height: usize,
    pub colour: bool,
}

const TITLES: [&str; 7] = [
    "WORKLOAD", "STATE", "DIGEST", "REQUESTS", "FAILED", "SINCE", "URL",
];
/// The columns that hold numbers, and stand to the right.
const NUMBERS: std::ops::Range<usize> = 3..5;
/// The column that has a colour.
const STATE: usize = 1;
/// Longest text of a cell before the last one.
const MAX_CELL: usize = 40;

/// The table, never wider or higher than the canvas.
pub(super) fn render(rows: &[Row], canvas: Canvas) -> Vec<String> {
    // The cursor stands on a line of its own below.
    let room = canvas.height.saturating_sub(2);
    let shown = if rows.len() <= room {
        rows.len()
    } else {
        room.saturating_sub(1)
    };
    let titles = TITLES.map(ToOwned::to_owned);
    let cells: Vec<[String; 7]> = rows.iter().take(shown).map(cells).collect();
    let mut widths = [0; 7];
    for line in std::iter::once(&titles).chain(&cells) {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut lines = Vec::with_capacity(shown + 2);
    if canvas.height >= 2 {
        lines.push(line(&titles, &widths, canvas.width, None));
    }
    for (row, cells) in rows.iter().zip(&cells) {
        let colour = canvas.colour.then(|| colour_of(&row.state));
        lines.push(line(cells, &widths, canvas.width, colour));
    }
    if shown < rows.len() && canvas.height >= 3 {
        let more = format!("… and {} more", rows.len() - shown);
        lines.push(more.chars().take(canvas.width).collect());
    }
    lines
}

fn cells(row: &Row) -> [String; 7] {
    let state = match &row.state {
        State::Running => "running".to_owned(),
        State::Working(word) => (*word).to_owned(),
        State::Failed(reason, true) => format!("{reason}, former runs"),
        State::Failed(reason, false) => reason.clone(),
    };
    let age = row.age.map_or("-".to_owned(), short);
    let digest = if row.digest.is_empty() {
        "-"
    } else {
        &row.digest
    };
    let mut cells = [
        row.name.clone(),
        state,
        digest.to_owned(),
        row.requests.to_string(),
        row.failures.to_string(),
        age,
        row.url.clone(),
    ];
    let last = cells.len() - 1;
    for (index, cell) in cells.iter_mut().enumerate() {
        // A name could otherwise move the cursor.
        *cell = cell.chars().filter(|c| !c.is_control()).collect();
        if index < last {
            cut(cell, MAX_CELL);
        }
    }
    cells
}

fn line(cells: &[String; 7], widths: &[usize; 7], width: usize, colour: Option<&str>) -> String {
    let mut line = String::new();
    let mut used = 0;
    for (index, (cell, column)) in cells.iter().zip(widths).enumerate() {
        let left = width.saturating_sub(used);
        if left == 0 {
            break;
        }
        let mut text = if NUMBERS.contains(&index) {
            format!("{cell:>column$}")
        } else if index + 1 == cells.len() {
            cell.clone()
        } else {
            format!("{cell:<column$}")
        };
        cut(&mut text, left);
        used += text.chars().count();
        match colour.filter(|_| index == STATE) {
            Some(colour) => {
                line.push_str(colour);
                line.push_str(&text);
                line.push_str("\x1b[0m");
            }
            None => line.push_str(&text),
        }
        let gap = width.saturating_sub(used).min(2);
        line.push_str(&" ".repeat(gap));
        used += gap;
    }
    line.truncate(line.trim_end().len());
    line
}

fn colour_of(state: &State) -> &'static str {
    match state {
        State::Running => "\x1b[32m",
        State::Working(_) => "\x1b[33m",
        State::Failed(..) => "\x1b[31m",
    }
}

/// Cuts a text to a length, visibly.
fn cut(text: &mut String, length: usize) {
    if text.chars().count() > length {
        *text = text.chars().take(length.saturating_sub(1)).collect();
        text.push('…');
    }
}

/// A time in its largest unit.
fn short(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds @ 60..3600 => format!("{}m", seconds / 60),
        seconds @ 3600..86_400 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDE: Canvas = Canvas {
        width: 120,
        height: 24,
        colour: false,
    };

    fn rows() -> Vec<Row> {
        let row = |name: &str, state| Row {
            name: name.to_owned(),
            state,
            digest: "e3b0c442".to_owned(),
            requests: 12_345,
            failures: 7,
            age: Some(Duration::from_secs(125)),
            url: "http://127.0.0.1:8000/".to_owned(),
        };
        vec![
            row("default/hello", State::Running),
            row(
                "default/broken",
                State::Failed("NotAComponent".to_owned(), true),
            ),
            Row {
                name: "default/new".to_owned(),
                state: State::Working("compiling"),
                ..Row::default()
            },
        ]
    }

    #[test]
    fn columns_stand_below_each_other() {
        let expected = "\
WORKLOAD        STATE                       DIGEST    REQUESTS  FAILED  SINCE  URL
default/hello   running                     e3b0c442     12345       7  2m     http://127.0.0.1:8000/
default/broken  NotAComponent, former runs  e3b0c442     12345       7  2m     http://127.0.0.1:8000/
default/new     compiling                   -                0       0  -";
        assert_eq!(render(&rows(), WIDE).join("\n"), expected);
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_and_no_table_higher() {
        for width in 0..100 {
            for height in 0..7 {
                let lines = render(
                    &rows(),
                    Canvas {
                        width,
                        height,
                        colour: false,
                    },
                );
                assert!(
                    lines.iter().all(|l| l.chars().count() <= width),
                    "{width}: {lines:?}"
                );
                assert!(lines.len() < height.max(1), "{height}: {lines:?}");
            }
        }
        let lines = render(&rows(), Canvas { height: 4, ..WIDE });
        assert_eq!(lines.len(), 3);
        assert_eq!(lines.last().map(String::as_str), Some("… and 2 more"));
    }

    #[test]
    fn colours_only_where_they_are_wanted() {
        assert!(!render(&rows(), WIDE).join("").contains('\x1b'));
        let coloured = render(
            &rows(),
            Canvas {
                colour: true,
                ..WIDE
            },
        )
        .join("\n");
        assert!(
            coloured.contains("\x1b[32mrunning") && coloured.contains("\x1b[31mNotAComponent"),
            "{coloured}"
        );
    }

    #[test]
    fn names_do_not_move_the_cursor() {
        let row = Row {
            name: "a\x1b[2J\r\nb".to_owned(),
            ..Row::default()
        };
        let table = render(&[row], WIDE).join("");
        assert!(!table.contains(['\x1b', '\r']), "{table:?}");
    }
}
