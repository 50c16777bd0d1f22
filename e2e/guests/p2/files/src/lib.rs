//! Does with files what the path says, by `wasi:filesystem`: `/read?at=/data/a`, `/write?at=…&text=…`, `/list?at=…`,
//! `/make?at=…` (a directory), `/nest?at=…&deep=N` (directories in each other), `/remove?at=…`, `/link?at=…&to=…` (a
//! symbolic link), `/hard?at=…&to=…` (a hard link of `to`), `/move?at=…&to=…`, `/size?at=…&bytes=N` (sets it),
//! `/fill?at=…&bytes=N&by=…` (writes so many bytes, by `write`, `stream`, `zeroes` or `append`), `/hold?at=…&bytes=N&other=…`
//! (fills a file, removes it while it is open, and fills another before and after it is closed), `/many?at=…` (opens a file until
//! that is refused), `/lists?at=…` (begins to list a directory until that is). Refusals are answered with status 403 and the error's name. `/` lists what it was given.

#[path = "../../http.rs"]
mod http;

wit_bindgen::generate!({
    inline: "
        package e2e:files;

        world guest {
            import wasi:filesystem/preopens@0.2.12;
            export wasi:http/incoming-handler@0.2.12;
        }
    ",
    path: "../../../../wit",
    generate_all,
});

use exports::wasi::http::incoming_handler::Guest;
use wasi::filesystem::preopens::get_directories;
use wasi::filesystem::types::{
    Descriptor, DescriptorFlags, ErrorCode, OpenFlags, PathFlags, filesystem_error_code,
};
use wasi::http::types::{IncomingRequest, ResponseOutparam};
use wasi::io::streams::StreamError;

struct Files;

impl Guest for Files {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let query = |name| http::query(&request, name).unwrap_or_default();
        let done = match http::path(&request).as_str() {
            "/read" => read(&query("at")),
            "/write" => write(&query("at"), &query("text")),
            "/list" => list(&query("at")),
            "/make" => make(&query("at")),
            "/nest" => nest(&query("at"), query("deep").parse().unwrap_or(1)),
            "/remove" => remove(&query("at")),
            "/link" => link(&query("at"), &query("to")),
            "/hard" => hard(&query("at"), &query("to")),
            "/move" => rename(&query("at"), &query("to")),
            "/size" => size(&query("at"), number(&query("bytes"))),
            "/fill" => fill(&query("at"), number(&query("bytes")), &query("by")),
            "/many" => many(&query("at")),
            "/lists" => lists(&query("at")),
            "/hold" => hold(&query("at"), number(&query("bytes")), &query("other")),
            _ => {
                let mut names: Vec<String> = get_directories().into_iter().map(|d| d.1).collect();
                names.sort();
                Ok(names.join("\n"))
            }
        };
        match done {
            Ok(text) => http::respond(out, 200, &text),
            Err(code) => http::respond(out, 403, code.name()),
        }
    }
}

/// The directory that a path is in, and the rest of the path.
fn find(path: &str) -> Result<(Descriptor, String), ErrorCode> {
    for (directory, name) in get_directories() {
        if let Some(rest) = path.strip_prefix(&name)
            && (rest.is_empty() || rest.starts_with('/'))
        {
            let rest = rest.trim_start_matches('/');
            let rest = if rest.is_empty() { "." } else { rest };
            return Ok((directory, rest.to_owned()));
        }
    }
    Err(ErrorCode::NoEntry)
}

fn open(path: &str, how: OpenFlags, flags: DescriptorFlags) -> Result<Descriptor, ErrorCode> {
    let (directory, rest) = find(path)?;
    directory.open_at(PathFlags::SYMLINK_FOLLOW, &rest, how, flags)
}

fn read(path: &str) -> Result<String, ErrorCode> {
    let file = open(path, OpenFlags::empty(), DescriptorFlags::READ)?;
    let (bytes, _) = file.read(1 << 20, 0)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn write(path: &str, text: &str) -> Result<String, ErrorCode> {
    let how = OpenFlags::CREATE | OpenFlags::TRUNCATE;
    let file = open(path, how, DescriptorFlags::WRITE)?;
    file.write(text.as_bytes(), 0)?;
    Ok("written".to_owned())
}

fn list(path: &str) -> Result<String, ErrorCode> {
    let directory = open(path, OpenFlags::DIRECTORY, DescriptorFlags::READ)?;
    let entries = directory.read_directory()?;
    let mut names = Vec::new();
    while let Some(entry) = entries.read_directory_entry()? {
        names.push(entry.name);
    }
    names.sort();
    Ok(names.join("\n"))
}

fn make(path: &str) -> Result<String, ErrorCode> {
    let (directory, rest) = find(path)?;
    directory.create_directory_at(&rest)?;
    Ok("made".to_owned())
}

fn nest(path: &str, deep: u32) -> Result<String, ErrorCode> {
    let (mut directory, mut name) = find(path)?;
    for _ in 0..deep {
        directory.create_directory_at(&name)?;
        let flags = DescriptorFlags::READ | DescriptorFlags::MUTATE_DIRECTORY;
        directory = directory.open_at(PathFlags::empty(), &name, OpenFlags::DIRECTORY, flags)?;
        name = "d".to_owned();
    }
    Ok("made".to_owned())
}

fn remove(path: &str) -> Result<String, ErrorCode> {
    let (directory, rest) = find(path)?;
    directory.unlink_file_at(&rest)?;
    Ok("removed".to_owned())
}

fn link(path: &str, to: &str) -> Result<String, ErrorCode> {
    let (directory, rest) = find(path)?;
    directory.symlink_at(to, &rest)?;
    Ok("linked".to_owned())
}

fn hard(path: &str, to: &str) -> Result<String, ErrorCode> {
    let ((directory, rest), (old, old_rest)) = (find(path)?, find(to)?);
    old.link_at(PathFlags::empty(), &old_rest, &directory, &rest)?;
    Ok("linked".to_owned())
}

fn rename(path: &str, to: &str) -> Result<String, ErrorCode> {
    let ((directory, rest), (new, new_rest)) = (find(path)?, find(to)?);
    directory.rename_at(&rest, &new, &new_rest)?;
    Ok("moved".to_owned())
}

fn size(path: &str, bytes: u64) -> Result<String, ErrorCode> {
    open(path, OpenFlags::CREATE, DescriptorFlags::WRITE)?.set_size(bytes)?;
    Ok("sized".to_owned())
}

fn fill(path: &str, bytes: u64, by: &str) -> Result<String, ErrorCode> {
    fill_file(
        &open(path, OpenFlags::CREATE, DescriptorFlags::WRITE)?,
        bytes,
        by,
    )?;
    Ok("filled".to_owned())
}

fn fill_file(file: &Descriptor, bytes: u64, by: &str) -> Result<(), ErrorCode> {
    let stream = match by {
        "stream" | "zeroes" => Some(file.write_via_stream(0)?),
        "append" => Some(file.append_via_stream()?),
        _ => None,
    };
    let mut written = 0;
    while written < bytes {
        let chunk = (bytes - written).min(4096);
        let content = vec![b'x'; chunk as usize];
        match &stream {
            Some(stream) if by == "zeroes" => stream
                .blocking_write_zeroes_and_flush(chunk)
                .map_err(code)?,
            Some(stream) => stream.blocking_write_and_flush(&content).map_err(code)?,
            None => drop(file.write(&content, written)?),
        }
        written += chunk;
    }
    Ok(())
}

fn code(error: StreamError) -> ErrorCode {
    match error {
        StreamError::LastOperationFailed(error) => {
            filesystem_error_code(&error).unwrap_or(ErrorCode::Io)
        }
        StreamError::Closed => ErrorCode::Pipe,
    }
}

fn hold(path: &str, bytes: u64, other: &str) -> Result<String, ErrorCode> {
    let file = open(path, OpenFlags::CREATE, DescriptorFlags::WRITE)?;
    fill_file(&file, bytes, "write")?;
    remove(path)?;
    let tell = |done: Result<String, ErrorCode>| match done {
        Ok(text) => text,
        Err(code) => code.name().to_owned(),
    };
    let before = tell(fill(other, bytes, "write"));
    drop(file);
    let after = tell(fill(other, bytes, "write"));
    Ok(format!("{before}, {after}"))
}

/// Opens a file until that is refused.
fn many(path: &str) -> Result<String, ErrorCode> {
    let mut files = Vec::new();
    while files.len() < 100_000 {
        match open(path, OpenFlags::CREATE, DescriptorFlags::READ) {
            Ok(file) => files.push(file),
            Err(code) => return Ok(format!("{} then {}", files.len(), code.name())),
        }
    }
    Ok("no limit".to_owned())
}

/// Begins to list a directory until that is refused.
fn lists(path: &str) -> Result<String, ErrorCode> {
    let directory = open(path, OpenFlags::DIRECTORY, DescriptorFlags::READ)?;
    let mut begun = Vec::new();
    while begun.len() < 100_000 {
        match directory.read_directory() {
            Ok(listing) => begun.push(listing),
            Err(code) => return Ok(format!("{} then {}", begun.len(), code.name())),
        }
    }
    Ok("no limit".to_owned())
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_default()
}

export!(Files);
