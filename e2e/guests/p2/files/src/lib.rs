//! Does with files what the path says, by `wasi:filesystem`: `/read?at=/data/a`, `/write?at=…&text=…`, `/list?at=…`,
//! `/make?at=…` (a directory), `/nest?at=…&deep=N` (directories in each other), `/remove?at=…`, `/link?at=…&to=…` (a
//! symbolic link). Refusals are answered with status 403 and the error's name. `/` lists what it was given.

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
use wasi::filesystem::types::{Descriptor, DescriptorFlags, ErrorCode, OpenFlags, PathFlags};
use wasi::http::types::{IncomingRequest, ResponseOutparam};

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

export!(Files);
