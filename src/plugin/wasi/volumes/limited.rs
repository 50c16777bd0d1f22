//! Which of the things that a guest holds are of a volume with a limit. All others are left to `wasmtime-wasi`.

use std::{fs, sync::Arc};

use tokio::sync::Semaphore;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::{
    filesystem::{Descriptor, Dir},
    p2::{FsResult, bindings::filesystem::types::ErrorCode},
};

use super::{
    super::{V2, V3},
    Preopens,
    open::{OpenFiles, Opening},
    p2, p3,
    quota::Quota,
};
use crate::plugin::{ComponentFacts, StoreState};

/// Two directories between which a guest links or moves.
pub(super) enum Pair {
    /// Both are of this volume.
    Within(Arc<Quota>, Dir, Dir),
    /// One is of a volume that the other is not of. There may be one file system behind both, but what is counted in one
    /// volume must not come to be in another.
    Apart,
    Unlimited,
}

/// Limits what a component can write by `wasi:filesystem`, in a linker that has the functions of `wasmtime-wasi`. What a
/// descriptor is of is looked at as it is used, since components of the same bytes are linked once, whatever they mount.
///
/// # Errors
/// When Wasmtime refuses a definition.
pub(in super::super) fn link(
    linker: &mut Linker<StoreState>,
    component: &ComponentFacts,
) -> wasmtime::Result<()> {
    let imports = |minor| component.imports_wasi("filesystem", minor);
    linker.allow_shadowing(true);
    if imports(2) {
        p2::link(linker, &format!("wasi:filesystem/types@{V2}"))?;
    }
    if component.flavor.is_concurrent() && imports(3) {
        p3::link(linker, &format!("wasi:filesystem/types@{V3}"))?;
    }
    linker.allow_shadowing(false);
    Ok(())
}

/// The workload's open files. Without a directory there is nothing to open, and nothing that counts.
pub(super) fn open_files(state: &StoreState) -> Arc<OpenFiles> {
    let preopens = state.all_slots::<Preopens>().next();
    preopens.map_or_else(Arc::default, |preopens| preopens.open.clone())
}

/// One was opened.
pub(super) fn opened(
    state: &mut StoreState,
    opening: Opening,
    this: &Resource<Descriptor>,
) -> wasmtime::Result<()> {
    opening.done(match state.table().get(this)? {
        Descriptor::File(file) => &file.file,
        Descriptor::Dir(directory) => &directory.dir,
    });
    Ok(())
}

/// The directory behind a descriptor, to be listed.
pub(super) fn listed(
    state: &mut StoreState,
    this: &Resource<Descriptor>,
) -> FsResult<(Arc<Semaphore>, Arc<fs::File>)> {
    let listings = open_files(state).listings.clone();
    match state.table().get(this)? {
        Descriptor::Dir(directory) => Ok((listings, directory.dir.clone())),
        Descriptor::File(_) => Err(ErrorCode::NotDirectory.into()),
    }
}

/// The file behind a descriptor, if it may be written to and its volume has a limit.
pub(super) fn file(
    state: &mut StoreState,
    this: &Resource<Descriptor>,
) -> Option<(Arc<Quota>, Arc<fs::File>)> {
    match find(state, this)? {
        (quota, Descriptor::File(file)) if !file.perms.write_not_permitted() => {
            Some((quota, file.file))
        }
        _ => None,
    }
}

/// The directory behind a descriptor, if its volume has a limit.
pub(super) fn directory(
    state: &mut StoreState,
    this: &Resource<Descriptor>,
) -> Option<(Arc<Quota>, Dir)> {
    match find(state, this)? {
        (quota, Descriptor::Dir(directory)) => Some((quota, directory)),
        _ => None,
    }
}

/// The directories behind two descriptors.
pub(super) fn pair(
    state: &mut StoreState,
    one: &Resource<Descriptor>,
    other: &Resource<Descriptor>,
) -> Pair {
    match (directory(state, one), directory(state, other)) {
        (None, None) => Pair::Unlimited,
        (Some((quota, one)), Some((same, other))) if Arc::ptr_eq(&quota, &same) => {
            Pair::Within(quota, one, other)
        }
        _ => Pair::Apart,
    }
}

fn find(state: &mut StoreState, this: &Resource<Descriptor>) -> Option<(Arc<Quota>, Descriptor)> {
    if !state.all_slots::<Preopens>().any(Preopens::has_limits) {
        return None;
    }
    let descriptor = state.table().get(this).ok()?.clone();
    let file = match &descriptor {
        Descriptor::File(file) => &file.file,
        Descriptor::Dir(directory) => &directory.dir,
    };
    // Whoever came to it: a part may have handed it on.
    let mut all = state.all_slots::<Preopens>();
    let quota = all.find_map(|preopens| preopens.quota_of(file))?;
    Some((quota, descriptor))
}
