//! What `wasi:filesystem/types` 0.2 can change, within limits.

mod stream;

use std::sync::Arc;

use wasmtime::{
    StoreContextMut,
    component::{Linker, Resource, ResourceType},
};
use wasmtime_wasi::{
    filesystem::{Descriptor, WasiFilesystemView as _},
    p2::{
        DynOutputStream, FsError, FsResult,
        bindings::filesystem::types::{
            DescriptorFlags, ErrorCode, HostDescriptor as _, OpenFlags, PathFlags,
        },
    },
};

use super::{
    limited::{self, Pair},
    listing::Listing,
    quota::{At, Change, How, Quota},
};
use crate::plugin::StoreState;
use stream::Output;

type Store<'a> = StoreContextMut<'a, StoreState>;
type This = Resource<Descriptor>;
type Stream = Resource<DynOutputStream>;

/// Puts these functions in the place of `wasmtime-wasi`'s, in a linker that has those.
///
/// # Errors
/// When Wasmtime refuses a definition.
pub(super) fn link(linker: &mut Linker<StoreState>, interface: &str) -> wasmtime::Result<()> {
    let mut types = linker.instance(interface)?;
    macro_rules! define {
        ($($name:literal: $function:ident,)*) => {
            $(types.func_wrap_async(
                concat!("[method]descriptor.", $name),
                |store, given| Box::new(async move { answer($function(store, given).await) }),
            )?;)*
        };
    }
    define! {
        "write": write,
        "set-size": set_size,
        "open-at": open_at,
        "create-directory-at": create_directory_at,
        "symlink-at": symlink_at,
        "link-at": link_at,
        "rename-at": rename_at,
        "unlink-file-at": unlink_file_at,
        "remove-directory-at": remove_directory_at,
        "read-directory": read_directory,
    }
    types.resource(
        "directory-entry-stream",
        ResourceType::host::<Listing>(),
        |mut store: Store<'_>, rep| {
            store
                .data_mut()
                .table()
                .delete(Resource::<Listing>::new_own(rep))?;
            Ok(())
        },
    )?;
    types.func_wrap(
        "[method]directory-entry-stream.read-directory-entry",
        |mut store: Store<'_>, (this,): (Resource<Listing>,)| {
            answer(Ok(store.data_mut().table().get_mut(&this)?.next()))
        },
    )?;
    types.func_wrap(
        "[method]descriptor.write-via-stream",
        |store, (this, offset): (This, u64)| answer(write_via_stream(store, this, offset)),
    )?;
    types.func_wrap(
        "[method]descriptor.append-via-stream",
        |store, (this,): (This,)| answer(append_via_stream(store, this)),
    )
}

/// What the guest gets, or what it dies of.
fn answer<T>(done: FsResult<T>) -> wasmtime::Result<(Result<T, ErrorCode>,)> {
    match done {
        Ok(value) => Ok((Ok(value),)),
        Err(error) => Ok((Err(error.downcast()?),)),
    }
}

/// Does something in a volume.
pub(super) async fn change<T: Send + 'static>(
    quota: &Arc<Quota>,
    work: impl FnOnce(&mut Change) -> FsResult<T> + Send + 'static,
) -> FsResult<T> {
    quota.change(work).await.map_err(FsError::trap)?
}

async fn write(mut store: Store<'_>, (this, bytes, offset): (This, Vec<u8>, u64)) -> FsResult<u64> {
    let Some((quota, file)) = limited::file(store.data_mut(), &this) else {
        let mut view = store.data_mut().filesystem();
        return view.write(this, bytes, offset).await;
    };
    change(&quota, move |volume| {
        let count = volume.write(&file, At::Offset(offset), &bytes)?;
        Ok(u64::try_from(count).unwrap_or(u64::MAX))
    })
    .await
}

async fn set_size(mut store: Store<'_>, (this, size): (This, u64)) -> FsResult<()> {
    let Some((quota, file)) = limited::file(store.data_mut(), &this) else {
        return store.data_mut().filesystem().set_size(this, size).await;
    };
    change(&quota, move |volume| Ok(volume.set_size(&file, size)?)).await
}

type OpenAt = (This, PathFlags, String, OpenFlags, DescriptorFlags);

async fn open_at(mut store: Store<'_>, given: OpenAt) -> FsResult<This> {
    let opening = limited::open_files(store.data()).begin();
    let opening = opening.ok_or(ErrorCode::InsufficientMemory)?;
    let opened = open_one(&mut store, given).await?;
    limited::opened(store.data_mut(), opening, &opened).map_err(FsError::trap)?;
    Ok(opened)
}

async fn open_one(
    store: &mut Store<'_>,
    (this, path, name, open, descriptor): OpenAt,
) -> FsResult<This> {
    let Some((quota, directory)) = limited::directory(store.data_mut(), &this) else {
        let mut view = store.data_mut().filesystem();
        return view.open_at(this, path, name, open, descriptor).await;
    };
    let how = How {
        path,
        open,
        descriptor,
    };
    let opened = change(&quota, move |volume| volume.open_at(&directory, how, name)).await?;
    Ok(store.data_mut().table().push(opened)?)
}

async fn read_directory(mut store: Store<'_>, (this,): (This,)) -> FsResult<Resource<Listing>> {
    let (listings, directory) = limited::listed(store.data_mut(), &this)?;
    let listing = Listing::read(listings, directory).await?;
    Ok(store.data_mut().table().push(listing)?)
}

async fn create_directory_at(mut store: Store<'_>, (this, path): (This, String)) -> FsResult<()> {
    let Some((quota, directory)) = limited::directory(store.data_mut(), &this) else {
        let mut view = store.data_mut().filesystem();
        return view.create_directory_at(this, path).await;
    };
    let work = move |volume: &mut Change| volume.create_directory_at(&directory, path);
    change(&quota, work).await
}

async fn symlink_at(
    mut store: Store<'_>,
    (this, to, path): (This, String, String),
) -> FsResult<()> {
    let Some((quota, directory)) = limited::directory(store.data_mut(), &this) else {
        return store
            .data_mut()
            .filesystem()
            .symlink_at(this, to, path)
            .await;
    };
    change(&quota, move |volume| {
        volume.symlink_at(&directory, to, path)
    })
    .await
}

async fn link_at(
    mut store: Store<'_>,
    (this, flags, old, other, new): (This, PathFlags, String, This, String),
) -> FsResult<()> {
    match limited::pair(store.data_mut(), &this, &other) {
        Pair::Within(quota, from, to) => {
            let work = move |volume: &mut Change| volume.link_at((&from, flags, old), (&to, new));
            change(&quota, work).await
        }
        Pair::Apart => Err(ErrorCode::CrossDevice.into()),
        Pair::Unlimited => {
            let mut view = store.data_mut().filesystem();
            view.link_at(this, flags, old, other, new).await
        }
    }
}

async fn rename_at(
    mut store: Store<'_>,
    (this, old, other, new): (This, String, This, String),
) -> FsResult<()> {
    match limited::pair(store.data_mut(), &this, &other) {
        Pair::Within(quota, from, to) => {
            let work = move |volume: &mut Change| volume.rename_at((&from, old), (&to, new));
            change(&quota, work).await
        }
        Pair::Apart => Err(ErrorCode::CrossDevice.into()),
        Pair::Unlimited => {
            let mut view = store.data_mut().filesystem();
            view.rename_at(this, old, other, new).await
        }
    }
}

async fn unlink_file_at(mut store: Store<'_>, (this, path): (This, String)) -> FsResult<()> {
    let Some((quota, directory)) = limited::directory(store.data_mut(), &this) else {
        return store
            .data_mut()
            .filesystem()
            .unlink_file_at(this, path)
            .await;
    };
    change(&quota, move |volume| {
        volume.unlink_file_at(&directory, path)
    })
    .await
}

async fn remove_directory_at(mut store: Store<'_>, (this, path): (This, String)) -> FsResult<()> {
    let Some((quota, directory)) = limited::directory(store.data_mut(), &this) else {
        let mut view = store.data_mut().filesystem();
        return view.remove_directory_at(this, path).await;
    };
    let work = move |volume: &mut Change| volume.remove_directory_at(&directory, path);
    change(&quota, work).await
}

fn write_via_stream(mut store: Store<'_>, this: This, offset: u64) -> FsResult<Stream> {
    let Some((quota, file)) = limited::file(store.data_mut(), &this) else {
        return store.data_mut().filesystem().write_via_stream(this, offset);
    };
    let output: DynOutputStream = Box::new(Output::new(quota, file, At::Offset(offset)));
    Ok(store.data_mut().table().push(output)?)
}

fn append_via_stream(mut store: Store<'_>, this: This) -> FsResult<Stream> {
    let Some((quota, file)) = limited::file(store.data_mut(), &this) else {
        return store.data_mut().filesystem().append_via_stream(this);
    };
    let output: DynOutputStream = Box::new(Output::new(quota, file, At::End));
    Ok(store.data_mut().table().push(output)?)
}
