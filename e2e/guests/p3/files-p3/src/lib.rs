//! Does with the file that `?at=` names what `do` says, by `wasi:filesystem` of WASI 0.3: `write` and `append` so many `bytes`,
//! set its `size` to them, `make` a directory, `remove` it, `list` the directory that it is in, while so many others that were
//! begun to be listed are not read; without `do`, reads it. With `as=read` it opens for reading only what it is to change. Without
//! `at`, lists what it was given.

#[path = "../../http.rs"]
mod http;

wit_bindgen::generate!({
    inline: "
        package e2e:files-p3;

        world guest {
            import wasi:filesystem/preopens@0.3.0;
            export wasi:http/handler@0.3.0;
        }
    ",
    path: "../../../../wit/p3",
    generate_all,
});

use exports::wasi::http::handler::Guest;
use wasi::filesystem::preopens::get_directories;
use wasi::filesystem::types::{Descriptor, DescriptorFlags, OpenFlags, PathFlags};
use wasi::http::types::{ErrorCode, Request, Response};

struct Files;

impl Guest for Files {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let Some(path) = http::query(&request, "at") else {
            let names: Vec<String> = get_directories().into_iter().map(|d| d.1).collect();
            return Ok(http::text(200, names.join("\n")));
        };
        let bytes = http::query(&request, "bytes").and_then(|b| b.parse().ok());
        let what = http::query(&request, "do").unwrap_or_default();
        let flags = match http::query(&request, "as").as_deref() {
            Some("read") => DescriptorFlags::READ,
            _ => DescriptorFlags::WRITE,
        };
        let done = act(&what, &path, bytes.unwrap_or_default(), flags).await;
        Ok(match done {
            Ok(bytes) => http::text(200, bytes),
            Err(why) => http::text(403, why),
        })
    }
}

async fn act(
    what: &str,
    path: &str,
    bytes: u64,
    flags: DescriptorFlags,
) -> Result<Vec<u8>, String> {
    let (directory, rest) = find(path)?;
    let (how, flags) = match what {
        "make" => {
            directory.create_directory_at(rest).await.map_err(name)?;
            return Ok("made".into());
        }
        "remove" => {
            directory.unlink_file_at(rest).await.map_err(name)?;
            return Ok("removed".into());
        }
        "list" => {
            let unread: Vec<_> = (0..bytes).map(|_| directory.read_directory()).collect();
            let (names, ended) = directory.read_directory();
            let mut names: Vec<String> = names.collect().await.into_iter().map(|n| n.name).collect();
            ended.await.map_err(name)?;
            drop(unread);
            names.sort();
            return Ok(names.join("\n").into_bytes());
        }
        "" => (OpenFlags::empty(), DescriptorFlags::READ),
        _ if flags == DescriptorFlags::READ => (OpenFlags::empty(), flags),
        _ => (OpenFlags::CREATE, flags),
    };
    let file = directory
        .open_at(PathFlags::SYMLINK_FOLLOW, rest, how, flags)
        .await
        .map_err(name)?;
    match what {
        "" => {
            let (content, _ended) = file.read_via_stream(0);
            Ok(content.collect().await)
        }
        "size" => {
            file.set_size(bytes).await.map_err(name)?;
            Ok("sized".into())
        }
        _ => {
            let (mut writer, content) = wit_stream::new();
            let written = if what == "append" {
                file.append_via_stream(content)
            } else {
                file.write_via_stream(content, 0)
            };
            wit_bindgen::spawn_local(async move {
                writer.write_all(vec![b'x'; bytes as usize]).await;
            });
            written.await.map_err(name)?;
            Ok("filled".into())
        }
    }
}

/// The directory that a path is in, and the rest of the path.
fn find(path: &str) -> Result<(Descriptor, String), String> {
    get_directories()
        .into_iter()
        .find_map(|(directory, name)| {
            let rest = path.strip_prefix(&format!("{name}/"))?.to_owned();
            Some((directory, rest))
        })
        .ok_or_else(|| "no such directory".to_owned())
}

fn name(code: impl std::fmt::Debug) -> String {
    format!("{code:?}")
}

export!(Files);
