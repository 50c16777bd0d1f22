//! Reads the file that `?at=` names, by `wasi:filesystem` of WASI 0.3; without it, lists what it was given.

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
use wasi::filesystem::types::{DescriptorFlags, OpenFlags, PathFlags};
use wasi::http::types::{ErrorCode, Request, Response};

struct Files;

impl Guest for Files {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let Some(path) = http::query(&request, "at") else {
            let names: Vec<String> = get_directories().into_iter().map(|d| d.1).collect();
            return Ok(http::text(200, names.join("\n")));
        };
        Ok(match read(&path).await {
            Ok(bytes) => http::text(200, bytes),
            Err(why) => http::text(403, why),
        })
    }
}

async fn read(path: &str) -> Result<Vec<u8>, String> {
    for (directory, name) in get_directories() {
        if let Some(rest) = path.strip_prefix(&format!("{name}/")) {
            let (how, flags) = (OpenFlags::empty(), DescriptorFlags::READ);
            let file = directory
                .open_at(PathFlags::SYMLINK_FOLLOW, rest.to_owned(), how, flags)
                .await
                .map_err(|code| format!("{code:?}"))?;
            let (content, _ended) = file.read_via_stream(0);
            return Ok(content.collect().await);
        }
    }
    Err("no such directory".to_owned())
}

export!(Files);
