//! On a terminal there is a live table, and elsewhere plain lines.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use anyhow::{Context as _, Result, ensure};
use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};
use serde_json::json;
use washlet_e2e::{agent::binary, eventually, process::Signal};

use super::END;
use crate::{
    local::{Local, folder, path, wasm, workload, yaml},
    stage::START,
};

/// A terminal's other end: what is written to the terminal comes out here, and goes to a file.
struct Terminal {
    master: File,
    /// Stays open until the end: a terminal that nobody has open is at its end.
    _slave: File,
    name: PathBuf,
    log: PathBuf,
}

impl Terminal {
    fn new(columns: u16, rows: u16) -> Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = PathBuf::from(ptsname(&master, Vec::new())?.into_string()?);
        let slave = File::options().read(true).write(true).open(&name)?;
        let log = folder("terminal")?.join("log");
        let mut written = File::options().create(true).append(true).open(&log)?;
        let master = File::from(master);
        let mut read = master.try_clone()?;
        // It ends with the terminal.
        thread::spawn(move || -> io::Result<()> {
            let mut bytes = [0; 4096];
            loop {
                let length = read.read(&mut bytes)?;
                written.write_all(&bytes[..length])?;
            }
        });
        let terminal = Self {
            master,
            _slave: slave,
            name,
            log,
        };
        terminal.resize(columns, rows)?;
        Ok(terminal)
    }

    fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        let size = Winsize {
            ws_col: columns,
            ws_row: rows,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        Ok(tcsetwinsize(&self.master, size)?)
    }

    /// `washlet run` of a file or folder, on this terminal.
    async fn run(&self, what: &Path) -> Result<Local> {
        let mut command = shell(r#"exec "$0" run "$1" --http-listen=127.0.0.1:0 > "$2" 2>&1"#)?;
        command.arg(what).arg(&self.name);
        Local::spawn_into(command, &self.log).await
    }

    /// Waits until the lines of the table, which are the last ones on the terminal, are as they should be.
    async fn shows(&self, width: usize, what: &str, fits: impl Fn(&[&str]) -> bool) -> Result<()> {
        eventually(&format!("the table shows {what}"), START, async || {
            let lines = on_screen(&fs::read_to_string(&self.log)?, width);
            let table = lines.iter().position(|line| line.starts_with("WORKLOAD"));
            let table = table.map(|at| lines[at..].iter().map(String::as_str));
            let table: Vec<&str> = table.into_iter().flatten().collect();
            Ok(if fits(&table) { Ok(()) } else { Err(lines) })
        })
        .await
    }
}

fn shell(script: &str) -> Result<Command> {
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).arg(binary()?);
    shell.env("TERM", "xterm").env_remove("NO_COLOR");
    Ok(shell)
}

/// What is on a terminal that was sent this, and what has scrolled away above: lines without their colours.
fn on_screen(sent: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<Vec<char>> = vec![Vec::new()];
    let (mut row, mut column) = (0_usize, 0);
    let mut sent = sent.chars();
    while let Some(character) = sent.next() {
        match character {
            '\r' => column = 0,
            '\n' => row += 1,
            '\x1b' => {
                let mut number = String::new();
                let end = sent.by_ref().find(|c| {
                    number.extend(c.is_ascii_digit().then_some(c));
                    c.is_ascii_alphabetic()
                });
                match end.unwrap_or_default() {
                    'F' => (row, column) = (row.saturating_sub(number.parse().unwrap_or(1)), 0),
                    'K' => lines[row].truncate(column),
                    'J' => {
                        lines[row].truncate(column);
                        lines.truncate(row + 1);
                    }
                    // Colours, and whether the cursor is seen.
                    _ => {}
                }
            }
            character => {
                if column == width {
                    (row, column) = (row + 1, 0);
                }
                lines.resize(lines.len().max(row + 1), Vec::new());
                let length = lines[row].len().max(column + 1);
                lines[row].resize(length, ' ');
                lines[row][column] = character;
                column += 1;
            }
        }
        lines.resize(lines.len().max(row + 1), Vec::new());
    }
    let text = lines.into_iter().map(String::from_iter);
    let mut lines: Vec<String> = text.collect();
    lines.pop_if(|line| line.is_empty());
    lines
}

#[tokio::test]
async fn a_terminal_has_a_table_that_is_drawn_in_place() -> Result<()> {
    let dir = folder("terminal")?;
    let (file, component) = (dir.join("app.yaml"), dir.join("app.wasm"));
    fs::copy(wasm("v1"), &component)?;
    let image = json!({"image": "file:./app.wasm"});
    fs::write(&file, yaml(&[workload("app", "v1", image)]))?;
    let terminal = Terminal::new(120, 24)?;
    let mut local = terminal.run(&file).await?;
    let row = |table: &[&str], words: &[&str]| {
        let cells: Vec<&str> = table.get(1).map_or(Vec::new(), |r| {
            r.split("  ")
                .map(str::trim)
                .filter(|c| !c.is_empty())
                .collect()
        });
        table.len() == 2 && words.iter().all(|word| cells.contains(word))
    };
    let running = |table: &[&str]| row(table, &["default/app", "running"]);
    terminal.shows(120, "a workload that runs", running).await?;
    for _ in 0..3 {
        local.expect("app.test", "/", (200, "v1")).await?;
    }
    let asked = |table: &[&str]| row(table, &["default/app", "running", "3"]);
    terminal.shows(120, "three requests", asked).await?;

    fs::write(&component, b"no component at all")?;
    let broken = |table: &[&str]| row(table, &["default/app", "NotAComponent, former runs"]);
    terminal.shows(120, "a broken build", broken).await?;
    fs::copy(wasm("v2"), &component)?;
    local.answers("app.test", "/", "v2").await?;
    terminal.shows(120, "that it is well", running).await?;

    local.process.signal(Signal::TERM)?;
    ensure!(local.process.wait(END).await? == 0);
    let given_back = "\x1b[?25h";
    local.says(given_back).await?;
    let said = local.said()?;
    let (_, after) = said.rsplit_once(given_back).context("not given back")?;
    ensure!(
        !after.contains("\x1b[?25l") && said.contains("\x1b[32mrunning"),
        "{said:?}"
    );
    Ok(())
}

#[tokio::test]
async fn the_table_is_as_large_as_the_terminal() -> Result<()> {
    let file = folder("terminal")?.join("three.yaml");
    let names = ["one", "two", "three"];
    fs::write(
        &file,
        yaml(&names.map(|name| workload(name, "v1", json!({})))),
    )?;
    let terminal = Terminal::new(30, 4)?;
    let local = terminal.run(&file).await?;
    for name in names {
        local.answers(&format!("{name}.test"), "/", "v1").await?;
    }
    let cut = |table: &[&str]| {
        let cut = table.iter().all(|line| line.chars().count() <= 30);
        cut && table.len() == 3 && table[2] == "… and 2 more"
    };
    terminal.shows(30, "one of three", cut).await?;
    terminal.resize(100, 24)?;
    let all = |table: &[&str]| {
        table.len() == 4
            && table[1..]
                .iter()
                .all(|row| row.contains("http://127.0.0.1:"))
    };
    terminal.shows(100, "all, as there is room now", all).await
}

#[tokio::test]
async fn what_is_no_terminal_gets_plain_lines() -> Result<()> {
    let dir = folder("terminal")?;
    let component = dir.join("app.wasm");
    fs::copy(wasm("v1"), &component)?;
    let image = json!({"image": "file:./app.wasm"});
    let file = dir.join("app.yaml");
    fs::write(&file, yaml(&[workload("app", "v1", image)]))?;
    // The program itself is the child that a test ends; what reads the pipe ends with it.
    let mut piped = shell(
        r#"mkfifo "$2" && { cat "$2" & } && exec "$0" run "$1" --http-listen=127.0.0.1:0 > "$2" 2>&1"#,
    )?;
    piped.arg(path(&file)?).arg(dir.join("pipe"));
    let local = Local::spawn(piped).await?;
    local.ready(&["app"]).await?;
    fs::write(&component, b"no component at all")?;
    local.says("NotAComponent").await?;
    fs::copy(wasm("v2"), &component)?;
    local.answers("app.test", "/", "v2").await?;
    let said = local.said()?;
    ensure!(!said.contains('\x1b'), "{said:?}");
    Ok(())
}
