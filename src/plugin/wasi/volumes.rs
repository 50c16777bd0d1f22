//! The directories behind volumes: where they are, who may see what of the machine, and how long they last.
//!
//! A workload's directories are made when a component that mounts them is linked, are shared by all its generations
//! ([`Kept`]), and are removed with it. Nothing outlives the host: what a host that died left behind is removed by the next
//! one that uses the same place ([`VolumeStore`]).

mod files;
mod host_path;
mod ledger;
mod limited;
mod listing;
mod open;
mod p2;
mod p3;
mod place;
mod preopens;
mod quota;
mod space;

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use wasmtime_wasi::{FsPerms, WasiCtx};

use crate::{
    engine::SharedMemory,
    fault::{Class, Fault, Reason, Stage},
    plugin::{ComponentFacts, Slot},
    spec::{self, Files, Volume, VolumeSource},
};
use host_path::Roots;
use open::OpenFiles;
use place::Place;
use quota::Quota;
use space::Space;

pub(super) use limited::link;
pub use place::VolumesError;
pub use preopens::Preopens;

/// Where the volumes of a host's workloads are, and what of the machine they may show.
#[derive(Debug, Default)]
pub struct VolumeStore {
    place: Place,
    roots: Roots,
    space: Arc<Space>,
}

/// What a workload keeps over its generations: its volumes, and the count of its memory. Dropping it removes the volumes.
#[derive(Debug)]
pub struct Kept {
    volumes: Arc<Volumes>,
    memory: Arc<SharedMemory>,
}

#[derive(Debug)]
struct Volumes {
    store: Arc<VolumeStore>,
    made: Mutex<Made>,
    open: Arc<OpenFiles>,
}

/// What was made for a workload.
#[derive(Debug, Default)]
struct Made {
    /// The workload's own directory, if there is any.
    folder: Option<PathBuf>,
    ephemeral: HashMap<String, (PathBuf, Arc<Quota>)>,
    /// With what was last written.
    files: HashMap<String, (PathBuf, Files)>,
}

impl VolumeStore {
    /// Volumes in a directory, which is made if need be; without one they are in a temporary one. `hostPath` volumes are
    /// allowed below `roots`. Removes, in a thread of its own, what hosts that are gone left in the directory.
    ///
    /// # Errors
    /// [`VolumesError`]: the directory cannot be made or locked, a root does not exist.
    pub fn open(dir: Option<&Path>, roots: &[PathBuf]) -> Result<Self, VolumesError> {
        Ok(Self {
            place: dir.map(Place::open).transpose()?.unwrap_or_default(),
            roots: Roots::open(roots)?,
            space: Arc::default(),
        })
    }

    /// Limits what all ephemeral volumes together may hold, in bytes; by default only the file system does.
    #[must_use]
    pub fn with_space(mut self, bytes: u64) -> Self {
        self.space = Arc::new(Space::new(bytes));
        self
    }
}

impl Kept {
    /// Of a workload that starts.
    #[must_use]
    pub fn new(store: Arc<VolumeStore>) -> Self {
        let made = Mutex::default();
        Self {
            volumes: Arc::new(Volumes {
                store,
                made,
                open: Arc::default(),
            }),
            memory: Arc::default(),
        }
    }

    /// The memory that all instances of the workload use.
    #[must_use]
    pub fn memory(&self) -> &Arc<SharedMemory> {
        &self.memory
    }

    /// Makes the volumes that the components see, and opens them: for each component, the slots of its stores. Only a
    /// component that imports `wasi:filesystem` has any of its mounts.
    ///
    /// # Errors
    /// [`Fault`], naming the volume or the mount: a path that is not allowed or does not exist, a full disk.
    pub async fn slots(
        &self,
        workload: &spec::Workload,
        components: &[ComponentFacts],
    ) -> Result<Vec<Vec<Slot>>, Fault> {
        let mut slots: Vec<Vec<Slot>> = match workload.memory_limit {
            Some(_) => vec![vec![self.memory.clone()]; components.len()],
            None => vec![Vec::new(); components.len()],
        };
        let sees = |(component, facts): &(&spec::Component, &ComponentFacts)| {
            let imports = &facts.world.imports;
            !component.mounts.is_empty()
                && imports
                    .iter()
                    .any(|i| i.namespace == "wasi" && i.package == "filesystem")
        };
        let components = || workload.components.iter().zip(components);
        if workload.volumes.is_empty() && components().all(|(c, _)| c.mounts.is_empty()) {
            return Ok(slots);
        }
        let wanted: Vec<Option<spec::Component>> = components()
            .map(|pair| sees(&pair).then(|| pair.0.clone()))
            .collect();
        let (volumes, declared) = (self.volumes.clone(), workload.volumes.clone());
        let opened = tokio::task::spawn_blocking(move || volumes.open(&declared, &wanted))
            .await
            .map_err(|error| refused(format!("volumes: {error}")).class(Class::Retry))??;
        for (slots, preopens) in slots.iter_mut().zip(opened) {
            slots.extend(preopens.map(|p| Arc::new(p) as Slot));
        }
        Ok(slots)
    }

    /// Lets limits and files follow the workload, as far as a component sees them. A failure is logged, and the former content
    /// stays. Says whether all files are what the workload says; if not, it is worth another try.
    pub async fn follow(&self, workload: &spec::Workload) -> bool {
        self.volumes.limit(workload);
        let behind = self.volumes.behind(workload);
        if behind.is_empty() {
            return true;
        }
        let volumes = self.volumes.clone();
        let written = tokio::task::spawn_blocking(move || volumes.rewrite(behind)).await;
        let (namespace, name) = (&workload.namespace, &workload.name);
        match written {
            Ok(failed) => {
                for (volume, error) in &failed {
                    tracing::error!(%namespace, workload = %name, volume, %error, "volume not updated");
                }
                failed.is_empty()
            }
            Err(error) => {
                tracing::error!(%namespace, workload = %name, %error, "volumes not updated");
                false
            }
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let made = std::mem::take(&mut *self.volumes.lock());
        for (_, quota) in made.ephemeral.values() {
            // What guests have begun still ends, and makes nothing new where it is removed.
            quota.set_limit(0);
        }
        let Some(folder) = made.folder else { return };
        // What guests wrote may be much.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || place::remove(&folder))),
            Err(_) => place::remove(&folder),
        }
    }
}

impl Volumes {
    fn lock(&self) -> std::sync::MutexGuard<'_, Made> {
        // At worst something is made again.
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the mounts of the components that have some; each volume is checked, whoever mounts it.
    fn open(
        &self,
        volumes: &[Volume],
        components: &[Option<spec::Component>],
    ) -> Result<Vec<Option<Preopens>>, Fault> {
        for (index, volume) in volumes.iter().enumerate() {
            if let VolumeSource::HostPath(path) = &volume.source {
                self.host_path(index, path)?;
            }
        }
        let of = |component: &Option<spec::Component>| {
            let opened = component.as_ref().map(|c| self.preopens(volumes, c));
            opened.transpose()
        };
        components.iter().map(of).collect()
    }

    fn preopens(&self, volumes: &[Volume], component: &spec::Component) -> Result<Preopens, Fault> {
        let of_component = |fault: Fault| fault.in_component(&component.name);
        if let Some((_, field, problem)) = spec::mount_problems(volumes, &component.mounts).first()
        {
            let message = format!("volumeMounts: {field} {problem}");
            return Err(of_component(Fault::new(
                Stage::Link,
                Reason::InvalidSpec,
                message,
            )));
        }
        let mut builder = WasiCtx::builder();
        let mut quotas = Vec::with_capacity(component.mounts.len());
        for mount in &component.mounts {
            let found = volumes.iter().enumerate();
            let Some((index, volume)) = found.clone().find(|(_, v)| v.name == mount.volume) else {
                continue;
            };
            let mut quota = None;
            let (path, held, writable) = match &volume.source {
                VolumeSource::Ephemeral { size_limit } => {
                    let (path, limit) = self.ephemeral(&volume.name, *size_limit)?;
                    quota = Some(limit);
                    (path, None, true)
                }
                VolumeSource::Files(files) => (self.files(&volume.name, files)?, None, false),
                VolumeSource::HostPath(path) => {
                    let held = self.host_path(index, path)?;
                    (host_path::again(&held), Some(held), true)
                }
            };
            let perms = if writable && !mount.read_only {
                FsPerms::ReadWrite
            } else {
                FsPerms::ReadOnly
            };
            builder
                .preopened_dir(&path, spec::normal(&mount.path), perms)
                .map_err(|error| failed(&volume.name, &format!("{error:#}")))?;
            drop(held);
            quotas.push(quota);
        }
        let context = builder.build().filesystem().clone();
        Preopens::new(context, quotas, self.open.clone()).map_err(|error| {
            let message = format!("volumeMounts: {error:#}");
            of_component(refused(message).class(Class::Retry))
        })
    }

    fn host_path(&self, index: usize, path: &Path) -> Result<fs::File, Fault> {
        self.store.roots.open_below(path).map_err(|problem| {
            // A folder may be made, and a disk mounted.
            let message = format!("spec.volumes[{index}].hostPath.path: {problem}");
            refused(message).class(Class::Retry)
        })
    }

    fn ephemeral(&self, name: &str, limit: Option<u64>) -> Result<(PathBuf, Arc<Quota>), Fault> {
        let limit = limit.unwrap_or(spec::DEFAULT_VOLUME_SIZE);
        let mut made = self.lock();
        if let Some((path, quota)) = made.ephemeral.get(name) {
            quota.set_limit(limit);
            return Ok((path.clone(), quota.clone()));
        }
        let path = self.make(&mut made).map_err(|e| failed(name, &e))?;
        let space = self.store.space.clone();
        let quota = Arc::new(Quota::new(path.clone(), limit, space));
        let entry = (path, quota);
        made.ephemeral.insert(name.to_owned(), entry.clone());
        Ok(entry)
    }

    /// Limits volumes to what the workload says now.
    fn limit(&self, workload: &spec::Workload) {
        let made = self.lock();
        for volume in &workload.volumes {
            if let VolumeSource::Ephemeral { size_limit } = &volume.source
                && let Some((_, quota)) = made.ephemeral.get(&volume.name)
            {
                quota.set_limit(size_limit.unwrap_or(spec::DEFAULT_VOLUME_SIZE));
            }
        }
    }

    fn files(&self, name: &str, files: &Files) -> Result<PathBuf, Fault> {
        let mut made = self.lock();
        if let Some((path, written)) = made.files.get_mut(name) {
            if written != files {
                files::write(path, &files.0).map_err(|e| failed(name, &e))?;
                written.clone_from(files);
            }
            return Ok(path.clone());
        }
        let path = self.make(&mut made).map_err(|e| failed(name, &e))?;
        files::write(&path, &files.0).map_err(|e| failed(name, &e))?;
        let entry = (path.clone(), files.clone());
        made.files.insert(name.to_owned(), entry);
        Ok(path)
    }

    /// A new directory of the workload's. Its name is a number: those of volumes and workloads are anybody's.
    fn make(&self, made: &mut Made) -> io::Result<PathBuf> {
        let folder = match &made.folder {
            Some(folder) => folder.clone(),
            None => made.folder.insert(self.store.place.folder()?).clone(),
        };
        let mut number = made.ephemeral.len() + made.files.len();
        loop {
            let path = folder.join(number.to_string());
            match place::directory(&path) {
                // A former try made it, and then failed.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                done => return done.map(|()| path),
            }
        }
    }

    /// The volumes whose files are not what the workload says.
    fn behind(&self, workload: &spec::Workload) -> Vec<(String, Files)> {
        let files = workload.volumes.iter().filter_map(|v| match &v.source {
            VolumeSource::Files(files) => Some((&v.name, files)),
            _ => None,
        });
        let mut files = files.peekable();
        if files.peek().is_none() {
            return Vec::new();
        }
        let made = self.lock();
        files
            .filter(|(name, files)| made.files.get(*name).is_some_and(|(_, is)| is != *files))
            .map(|(name, files)| (name.clone(), files.clone()))
            .collect()
    }

    fn rewrite(&self, behind: Vec<(String, Files)>) -> Vec<(String, io::Error)> {
        let mut failed = Vec::new();
        let mut made = self.lock();
        for (name, files) in behind {
            let Some((path, written)) = made.files.get_mut(&name) else {
                continue;
            };
            match files::write(path, &files.0) {
                Ok(()) => *written = files,
                Err(error) => failed.push((name, error)),
            }
        }
        failed
    }
}

fn refused(message: String) -> Fault {
    Fault::new(Stage::Link, Reason::BindFailed, message)
}

fn failed(volume: &str, error: &dyn std::fmt::Display) -> Fault {
    refused(format!("volume `{volume}` cannot be made: {error}")).class(Class::Retry)
}

#[cfg(test)]
mod tests;
