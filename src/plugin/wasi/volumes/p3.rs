//! What `wasi:filesystem/types` 0.3 can change, within limits.

mod convert;
mod stream;

use std::sync::Arc;

use tokio::sync::oneshot;
use wasmtime::{
    StoreContextMut,
    component::{Access, Accessor, FutureReader, Linker, Resource, StreamReader},
};
use wasmtime_wasi::{
    filesystem::{Descriptor, WasiFilesystem, WasiFilesystemView as _},
    p2::FsResult,
    p3::{
        bindings::filesystem::types::{
            DescriptorFlags, DirectoryEntry, ErrorCode, HostDescriptorWithStore, OpenFlags,
            PathFlags,
        },
        filesystem::{FilesystemError, FilesystemResult},
    },
};

use super::{
    limited::{self, Pair},
    listing::Listing,
    p2::change,
    quota::{At, Change, How, Quota},
};
use crate::plugin::StoreState;
use stream::Input;

type Store = Accessor<StoreState>;
type This = Resource<Descriptor>;
type Bytes = StreamReader<u8>;
type Written = FutureReader<Result<(), ErrorCode>>;

/// Puts these functions in the place of `wasmtime-wasi`'s, in a linker that has those.
///
/// # Errors
/// When Wasmtime refuses a definition.
pub(super) fn link(linker: &mut Linker<StoreState>, interface: &str) -> wasmtime::Result<()> {
    let mut types = linker.instance(interface)?;
    macro_rules! define {
        ($($name:literal: $function:ident,)*) => {
            $(types.func_wrap_concurrent(
                concat!("[method]descriptor.", $name),
                |store, given| Box::pin(async move { answer($function(store, given).await) }),
            )?;)*
        };
    }
    define! {
        "set-size": set_size,
        "open-at": open_at,
        "create-directory-at": create_directory_at,
        "symlink-at": symlink_at,
        "link-at": link_at,
        "rename-at": rename_at,
        "unlink-file-at": unlink_file_at,
        "remove-directory-at": remove_directory_at,
    }
    types.func_wrap(
        "[method]descriptor.write-via-stream",
        |store, (this, bytes, offset): (This, Bytes, u64)| {
            Ok((write_via_stream(store, this, bytes, offset)?,))
        },
    )?;
    types.func_wrap(
        "[method]descriptor.read-directory",
        |store, (this,): (This,)| Ok((read_directory(store, &this)?,)),
    )?;
    types.func_wrap(
        "[method]descriptor.append-via-stream",
        |store, (this, bytes): (This, Bytes)| Ok((append_via_stream(store, this, bytes)?,)),
    )
}

/// What the guest gets, or what it dies of.
fn answer<T>(done: FilesystemResult<T>) -> wasmtime::Result<(Result<T, ErrorCode>,)> {
    match done {
        Ok(value) => Ok((Ok(value),)),
        Err(error) => Ok((Err(error.downcast()?),)),
    }
}

/// Does something in a volume.
async fn done<T: Send + 'static>(
    quota: &Arc<Quota>,
    work: impl FnOnce(&mut Change) -> FsResult<T> + Send + 'static,
) -> FilesystemResult<T> {
    change(quota, work).await.map_err(convert::error)
}

/// The same, as `wasmtime-wasi` wants it.
fn view(store: &Store) -> Accessor<StoreState, WasiFilesystem> {
    store.with_getter::<WasiFilesystem>(StoreState::filesystem)
}

fn directory(store: &Store, this: &This) -> Option<(Arc<Quota>, wasmtime_wasi::filesystem::Dir)> {
    store.with(|mut access| limited::directory(access.data_mut(), this))
}

async fn set_size(store: &Store, (this, size): (This, u64)) -> FilesystemResult<()> {
    let found = store.with(|mut access| limited::file(access.data_mut(), &this));
    let Some((quota, file)) = found else {
        return WasiFilesystem::set_size(&view(store), this, size).await;
    };
    done(&quota, move |volume| Ok(volume.set_size(&file, size)?)).await
}

type OpenAt = (This, PathFlags, String, OpenFlags, DescriptorFlags);

async fn open_at(store: &Store, given: OpenAt) -> FilesystemResult<This> {
    let opening = store.with(|mut access| limited::open_files(access.data_mut()).begin());
    let opening = opening.ok_or(ErrorCode::InsufficientMemory)?;
    let opened = open_one(store, given).await?;
    store
        .with(|mut access| limited::opened(access.data_mut(), opening, &opened))
        .map_err(FilesystemError::trap)?;
    Ok(opened)
}

async fn open_one(
    store: &Store,
    (this, path, name, open, descriptor): OpenAt,
) -> FilesystemResult<This> {
    let Some((quota, directory)) = directory(store, &this) else {
        let view = view(store);
        return WasiFilesystem::open_at(&view, this, path, name, open, descriptor).await;
    };
    let how = How {
        path: convert::path(path),
        open: convert::open(open),
        descriptor: convert::descriptor(descriptor),
    };
    let opened = done(&quota, move |volume| volume.open_at(&directory, how, name)).await?;
    Ok(store.with(|mut access| access.data_mut().table().push(opened))?)
}

async fn create_directory_at(store: &Store, (this, path): (This, String)) -> FilesystemResult<()> {
    let Some((quota, directory)) = directory(store, &this) else {
        return WasiFilesystem::create_directory_at(&view(store), this, path).await;
    };
    let work = move |volume: &mut Change| volume.create_directory_at(&directory, path);
    done(&quota, work).await
}

async fn symlink_at(
    store: &Store,
    (this, to, path): (This, String, String),
) -> FilesystemResult<()> {
    let Some((quota, directory)) = directory(store, &this) else {
        return WasiFilesystem::symlink_at(&view(store), this, to, path).await;
    };
    done(&quota, move |volume| {
        volume.symlink_at(&directory, to, path)
    })
    .await
}

async fn link_at(
    store: &Store,
    (this, flags, old, other, new): (This, PathFlags, String, This, String),
) -> FilesystemResult<()> {
    let pair = store.with(|mut access| limited::pair(access.data_mut(), &this, &other));
    match pair {
        Pair::Within(quota, from, to) => {
            let flags = convert::path(flags);
            let work = move |volume: &mut Change| volume.link_at((&from, flags, old), (&to, new));
            done(&quota, work).await
        }
        Pair::Apart => Err(ErrorCode::CrossDevice.into()),
        Pair::Unlimited => {
            WasiFilesystem::link_at(&view(store), this, flags, old, other, new).await
        }
    }
}

async fn rename_at(
    store: &Store,
    (this, old, other, new): (This, String, This, String),
) -> FilesystemResult<()> {
    let pair = store.with(|mut access| limited::pair(access.data_mut(), &this, &other));
    match pair {
        Pair::Within(quota, from, to) => {
            let work = move |volume: &mut Change| volume.rename_at((&from, old), (&to, new));
            done(&quota, work).await
        }
        Pair::Apart => Err(ErrorCode::CrossDevice.into()),
        Pair::Unlimited => WasiFilesystem::rename_at(&view(store), this, old, other, new).await,
    }
}

async fn unlink_file_at(store: &Store, (this, path): (This, String)) -> FilesystemResult<()> {
    let Some((quota, directory)) = directory(store, &this) else {
        return WasiFilesystem::unlink_file_at(&view(store), this, path).await;
    };
    done(&quota, move |volume| {
        volume.unlink_file_at(&directory, path)
    })
    .await
}

async fn remove_directory_at(store: &Store, (this, path): (This, String)) -> FilesystemResult<()> {
    let Some((quota, directory)) = directory(store, &this) else {
        return WasiFilesystem::remove_directory_at(&view(store), this, path).await;
    };
    let work = move |volume: &mut Change| volume.remove_directory_at(&directory, path);
    done(&quota, work).await
}

type Names = StreamReader<DirectoryEntry>;

fn read_directory(
    mut store: StoreContextMut<'_, StoreState>,
    this: &This,
) -> wasmtime::Result<(Names, Written)> {
    let listed = limited::listed(store.data_mut(), this);
    let reading = async move {
        let (listings, directory) = listed?;
        Listing::read(listings, directory).await
    };
    let (told, ended) = oneshot::channel();
    let names = stream::Names::new(Box::pin(reading), told);
    let names = StreamReader::new(&mut store, names)?;
    Ok((names, FutureReader::new(&mut store, ended)?))
}

fn write_via_stream(
    mut store: StoreContextMut<'_, StoreState>,
    this: This,
    bytes: Bytes,
    offset: u64,
) -> wasmtime::Result<Written> {
    let Some((quota, file)) = limited::file(store.data_mut(), &this) else {
        let access = Access::<_, WasiFilesystem>::new(store, StoreState::filesystem);
        return WasiFilesystem::write_via_stream(access, this, bytes, offset);
    };
    consume(store, bytes, |told| {
        Input::new(quota, file, At::Offset(offset), told)
    })
}

fn append_via_stream(
    mut store: StoreContextMut<'_, StoreState>,
    this: This,
    bytes: Bytes,
) -> wasmtime::Result<Written> {
    let Some((quota, file)) = limited::file(store.data_mut(), &this) else {
        let access = Access::<_, WasiFilesystem>::new(store, StoreState::filesystem);
        return WasiFilesystem::append_via_stream(access, this, bytes);
    };
    consume(store, bytes, |told| Input::new(quota, file, At::End, told))
}

fn consume(
    mut store: StoreContextMut<'_, StoreState>,
    bytes: Bytes,
    by: impl FnOnce(stream::Told) -> Input,
) -> wasmtime::Result<Written> {
    let (told, hears) = oneshot::channel();
    bytes.pipe(&mut store, by(told))?;
    FutureReader::new(&mut store, hears)
}
