//! What the instances of a component find mounted.

use std::{fs, sync::Arc};

use wasmtime::component::ResourceTable;
use wasmtime_wasi::{
    WasiCtx,
    filesystem::{Descriptor, WasiFilesystemCtx, WasiFilesystemCtxView},
    p2::bindings::filesystem::preopens::Host as _,
};

use super::{open::OpenFiles, quota::Quota};

/// The directories that a component mounts, opened; its instances share them.
pub struct Preopens {
    context: WasiFilesystemCtx,
    /// The limits of the ephemeral ones.
    pub(super) quotas: Vec<Arc<Quota>>,
    /// What the workload has opened in them.
    pub(super) open: Arc<OpenFiles>,
}

impl Preopens {
    /// Of directories, and for each the limit that is on it, if there is one; `open` are the workload's open files.
    pub(super) fn new(
        mut context: WasiFilesystemCtx,
        limits: Vec<Option<Arc<Quota>>>,
        open: Arc<OpenFiles>,
    ) -> wasmtime::Result<Self> {
        let mut table = ResourceTable::new();
        let mut view = WasiFilesystemCtxView {
            ctx: &mut context,
            table: &mut table,
        };
        let directories = view.get_directories()?;
        let mut quotas: Vec<Arc<Quota>> = Vec::new();
        for ((directory, _), limit) in directories.into_iter().zip(limits) {
            let Some(quota) = limit else { continue };
            if let Descriptor::Dir(directory) = table.get(&directory)? {
                quota.admit(&directory.dir)?;
            }
            if !quotas.iter().any(|known| Arc::ptr_eq(known, &quota)) {
                quotas.push(quota);
            }
        }
        Ok(Self {
            context,
            quotas,
            open,
        })
    }

    /// Gives an instance the directories.
    pub(in super::super) fn give(&self, context: &mut WasiCtx) {
        *context.filesystem() = self.context.clone();
    }

    /// Whether a directory has a limit.
    pub(super) fn has_limits(&self) -> bool {
        !self.quotas.is_empty()
    }

    /// The limit that is on an open file, or directory.
    pub(super) fn quota_of(&self, file: &Arc<fs::File>) -> Option<Arc<Quota>> {
        self.quotas.iter().find(|quota| quota.owns(file)).cloned()
    }
}
