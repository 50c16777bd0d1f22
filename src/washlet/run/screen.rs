//! A few lines at the bottom of a terminal that are drawn in place, and text that scrolls by above them.
//!
//! Everything that goes to the terminal goes through here once there is a screen. Each change is one write, so nothing
//! flickers; and the size is asked for each time, so that a resized window is right with the next change.

use std::{
    fmt,
    io::{self, IsTerminal as _, Write},
    sync::{Arc, Mutex, PoisonError},
};

use super::table::Canvas;

/// The live part of a terminal; cheap to clone. [`Screen::close`] gives the terminal back.
#[derive(Clone)]
pub struct Screen(Arc<Mutex<Live>>);

struct Live {
    out: Box<dyn Write + Send>,
    size: fn() -> Option<(usize, usize)>,
    colour: bool,
    /// What stands there, from the top.
    drawn: Vec<String>,
    closed: bool,
}

/// Hides the cursor, which would jump about.
const HIDE: &str = "\x1b[?25l";
const SHOW: &str = "\x1b[?25h";
/// Clears the rest of the line, and of the screen.
const REST_OF_LINE: &str = "\x1b[K";
const REST: &str = "\x1b[J";

impl Screen {
    /// The terminal that standard output is; none if it is no terminal, or one that can only append (`TERM` is `dumb` or not
    /// set). `colour`: whether colours are wanted.
    #[must_use]
    pub fn of_terminal(term: Option<&str>, colour: bool) -> Option<Self> {
        let able = term.is_some_and(|term| !term.is_empty() && term != "dumb");
        (able && io::stdout().is_terminal())
            .then(|| Self::new(Box::new(io::stdout()), size, colour))
    }

    fn new(out: Box<dyn Write + Send>, size: fn() -> Option<(usize, usize)>, colour: bool) -> Self {
        Self(Arc::new(Mutex::new(Live {
            out,
            size,
            colour,
            drawn: Vec::new(),
            closed: false,
        })))
    }

    /// Prints lines above the live ones.
    pub fn above(&self, text: &str) {
        let mut live = self.lock();
        let lines = std::mem::take(&mut live.drawn);
        let mut frame = live.to_top(&lines);
        frame.push_str(REST);
        frame.push_str(text);
        if !text.ends_with('\n') {
            frame.push('\n');
        }
        put(&mut frame, &lines);
        live.drawn = lines;
        live.write(&frame);
    }

    /// Draws other live lines, if they are others.
    pub(super) fn draw(&self, render: impl FnOnce(Canvas) -> Vec<String>) {
        let mut live = self.lock();
        let (width, height) = (live.size)().unwrap_or((80, 24));
        let lines = render(Canvas {
            width,
            height,
            colour: live.colour,
        });
        if live.closed || lines == live.drawn {
            return;
        }
        let mut frame = if live.drawn.is_empty() {
            HIDE.to_owned()
        } else {
            String::new()
        };
        frame.push_str(&live.to_top(&live.drawn));
        put(&mut frame, &lines);
        frame.push_str(REST);
        live.drawn = lines;
        live.write(&frame);
    }

    /// Leaves the live lines where they are, as text like any other, and shows the cursor below them.
    pub fn close(&self) {
        let mut live = self.lock();
        if !std::mem::replace(&mut live.closed, true) {
            live.drawn.clear();
            live.write(SHOW);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Live> {
        // At worst a line is drawn twice.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    /// Moves the cursor to the first of these lines, as the terminal shows them now: made narrower, it has broken them.
    fn to_top(&self, lines: &[String]) -> String {
        let width = (self.size)().map_or(80, |(width, _)| width.max(1));
        let rows: usize = lines
            .iter()
            .map(|line| visible(line).div_ceil(width).max(1))
            .sum();
        match rows {
            0 => String::new(),
            rows => format!("\x1b[{rows}F"),
        }
    }

    fn write(&mut self, frame: &str) {
        // A terminal that is gone is no reason to stop serving.
        let _ = self.out.write_all(frame.as_bytes());
        let _ = self.out.flush();
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if !self.closed {
            self.write(SHOW);
        }
    }
}

/// Logs go above the live lines.
impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.above(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Screen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Screen")
    }
}

fn put(frame: &mut String, lines: &[String]) {
    for line in lines {
        frame.push_str(line);
        frame.push_str(REST_OF_LINE);
        frame.push('\n');
    }
}

/// How many places a line takes, without its colours.
fn visible(line: &str) -> usize {
    let mut places = 0;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        if character == '\x1b' {
            characters.by_ref().find(|c| c.is_ascii_alphabetic());
        } else {
            places += 1;
        }
    }
    places
}

fn size() -> Option<(usize, usize)> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    let (width, height) = (usize::from(size.ws_col), usize::from(size.ws_row));
    (width > 0 && height > 0).then_some((width, height))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<String>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let text = String::from_utf8_lossy(bytes).into_owned();
            self.0.lock().expect("a lock").push(text);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn screen(size: fn() -> Option<(usize, usize)>) -> (Screen, impl Fn() -> Vec<String>) {
        let written = Written::default();
        let screen = Screen::new(Box::new(written.clone()), size, false);
        let taken = move || std::mem::take(&mut *written.0.lock().expect("a lock"));
        (screen, taken)
    }

    #[test]
    fn lines_are_drawn_in_place_and_text_goes_above() {
        let (screen, written) = screen(|| Some((40, 10)));
        screen.draw(|canvas| vec!["one".to_owned(), canvas.width.to_string()]);
        assert_eq!(written(), ["\x1b[?25lone\x1b[K\n40\x1b[K\n\x1b[J"]);
        screen.draw(|_| vec!["one".to_owned(), "40".to_owned()]);
        assert!(written().is_empty(), "nothing has changed");
        screen.draw(|_| vec!["two".to_owned()]);
        assert_eq!(written(), ["\x1b[2Ftwo\x1b[K\n\x1b[J"]);
        screen.above("said");
        assert_eq!(written(), ["\x1b[1F\x1b[Jsaid\ntwo\x1b[K\n"]);
    }

    #[test]
    fn a_narrower_terminal_has_broken_the_lines() {
        let (screen, written) = screen(|| Some((4, 10)));
        screen.draw(|_| vec!["\x1b[32m123456789\x1b[0m".to_owned(), String::new()]);
        written();
        screen.draw(|_| vec!["x".to_owned()]);
        assert_eq!(written(), ["\x1b[4Fx\x1b[K\n\x1b[J"]);
    }

    #[test]
    fn the_terminal_is_given_back() {
        let (screen, written) = screen(|| None);
        screen.draw(|_| vec!["one".to_owned()]);
        written();
        screen.close();
        screen.close();
        assert_eq!(written(), [SHOW]);
        screen.draw(|_| vec!["two".to_owned()]);
        screen.above("the end");
        assert_eq!(written(), ["\x1b[Jthe end\n"], "only appended");
        let (screen, written) = self::screen(|| None);
        drop(screen);
        assert_eq!(written(), [SHOW], "whatever happens");
    }

    #[test]
    fn a_terminal_that_only_appends_has_none() {
        for term in [None, Some(""), Some("dumb")] {
            assert!(Screen::of_terminal(term, true).is_none());
        }
    }
}
