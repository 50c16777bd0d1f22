use std::{
    os::unix::fs::{PermissionsExt as _, symlink},
    time::Duration,
};

use bytes::Bytes;

use super::*;
use crate::{engine::Flavor, plugin::testing, wit::World};

fn facts(imports: &[&str]) -> Vec<ComponentFacts> {
    vec![ComponentFacts {
        name: "main".into(),
        world: Arc::new(World {
            imports: imports.iter().map(|i| i.parse().unwrap()).collect(),
            exports: Vec::new(),
        }),
        flavor: Flavor::Plain,
        apart: Arc::default(),
    }]
}

fn with_files() -> Vec<ComponentFacts> {
    facts(&["wasi:filesystem/preopens@0.2.0"])
}

fn workload(volumes: &[(&str, VolumeSource)]) -> spec::Workload {
    let mut workload = testing::workload("test");
    workload.components[0].mounts = volumes
        .iter()
        .map(|(name, _)| spec::Mount {
            volume: (*name).to_owned(),
            path: format!("/{name}"),
            read_only: false,
        })
        .collect();
    workload.volumes = volumes
        .iter()
        .map(|(name, source)| Volume {
            name: (*name).to_owned(),
            source: source.clone(),
        })
        .collect();
    workload
}

fn files(content: &[(&str, &'static str)]) -> VolumeSource {
    let content = content.iter();
    let content =
        content.map(|(path, text)| ((*path).to_owned(), Bytes::from_static(text.as_bytes())));
    VolumeSource::Files(Files(Arc::new(content.collect())))
}

async fn until(mut condition: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never happened");
}

/// The message of the fault that a path of the machine meets.
async fn refusal(store: VolumeStore, path: &Path) -> Fault {
    let workload = workload(&[("v", VolumeSource::HostPath(path.to_owned()))]);
    let kept = Kept::new(Arc::new(store));
    kept.slots(&workload, &with_files())
        .await
        .expect_err("a fault")
}

#[tokio::test]
async fn generations_share_what_lasts_until_the_workload_goes() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(VolumeStore::open(Some(dir.path()), &[]).unwrap());
    let kept = Kept::new(store.clone());
    let workload = workload(&[
        ("data", VolumeSource::default()),
        ("conf", files(&[("a", "1")])),
    ]);
    let slots = kept.slots(&workload, &with_files()).await.unwrap();
    assert_eq!(slots[0].len(), 1, "its directories, and no count of memory");
    let folder = kept.volumes.lock().folder.clone().unwrap();
    assert!(folder.starts_with(dir.path()));
    let mode = std::fs::metadata(&folder).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let data = kept.volumes.lock().ephemeral["data"].0.clone();
    std::fs::write(data.join("kept"), "x").unwrap();

    kept.slots(&workload, &with_files()).await.unwrap();
    assert_eq!(kept.volumes.lock().ephemeral["data"].0, data);
    assert!(data.join("kept").exists(), "the next generation finds it");

    drop(kept);
    until(|| !folder.exists()).await;
    drop(store);
    let left: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left, ["gate"]);
}

#[tokio::test]
async fn components_and_generations_share_a_limit() {
    let kept = Kept::new(Arc::default());
    let limited = |size_limit| {
        let mut workload = workload(&[("data", VolumeSource::Ephemeral { size_limit })]);
        let mut other = workload.components[0].clone();
        other.name = "other".into();
        other.mounts[0].read_only = true;
        workload.components.push(other);
        workload
    };
    let both = [with_files(), with_files()].concat();
    let quotas = async |size_limit| {
        let slots = kept.slots(&limited(size_limit), &both).await.unwrap();
        let slots = slots.into_iter().flatten();
        let preopens = slots.map(|slot| slot.downcast::<Preopens>().unwrap());
        preopens
            .flat_map(|p| p.quotas.clone())
            .collect::<Vec<Arc<Quota>>>()
    };
    let (first, second) = (quotas(Some(10)).await, quotas(None).await);
    let all: Vec<_> = first.iter().chain(&second).collect();
    assert_eq!(all.len(), 4);
    assert!(all.iter().all(|quota| Arc::ptr_eq(quota, &first[0])));
    assert_eq!(first[0].limit(), spec::DEFAULT_VOLUME_SIZE);
    kept.follow(&limited(Some(20))).await;
    assert_eq!(first[0].limit(), 20, "without another generation");
}

#[tokio::test]
async fn files_that_cannot_be_written_are_still_behind() {
    let kept = Kept::new(Arc::default());
    let with = |text| workload(&[("conf", files(&[("a", text)]))]);
    kept.slots(&with("1"), &with_files()).await.unwrap();
    assert!(kept.follow(&with("1")).await);
    let path = kept.volumes.lock().files["conf"].0.clone();
    let away = path.with_extension("away");
    std::fs::rename(&path, &away).unwrap();
    assert!(!kept.follow(&with("2")).await);
    assert!(!kept.follow(&with("2")).await, "the same is tried again");
    std::fs::rename(&away, &path).unwrap();
    assert_eq!(std::fs::read_to_string(path.join("a")).unwrap(), "1");
    assert!(kept.follow(&with("2")).await);
    assert_eq!(std::fs::read_to_string(path.join("a")).unwrap(), "2");
}

#[tokio::test]
async fn only_who_imports_files_has_directories() {
    let store = Arc::new(VolumeStore::default());
    let kept = Kept::new(store.clone());
    let workload = workload(&[("data", VolumeSource::default())]);
    let slots = kept
        .slots(&workload, &facts(&["wasi:cli/environment@0.2.0"]))
        .await
        .unwrap();
    assert!(slots[0].is_empty());
    assert!(kept.volumes.lock().folder.is_none(), "and nothing is made");

    let mut limited = testing::workload("test");
    limited.memory_limit = Some(1);
    let slots = kept.slots(&limited, &facts(&[])).await.unwrap();
    assert!(slots[0][0].clone().downcast::<SharedMemory>().is_ok());
}

#[test]
fn leftovers_of_the_dead_are_removed_and_the_living_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let living = VolumeStore::open(Some(dir.path()), &[]).unwrap();
    let folder = living.place.folder().unwrap();
    let dead = dir.path().join("host-dead");
    std::fs::create_dir_all(dead.join("0/0/deep")).unwrap();
    std::fs::write(dead.join("0/0/deep/file"), "x").unwrap();
    std::fs::write(dir.path().join("host-dead.lock"), "").unwrap();

    let next = VolumeStore::open(Some(dir.path()), &[]).unwrap();
    for _ in 0..1000 {
        if !dir.path().join("host-dead.lock").exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!dead.exists() && !dir.path().join("host-dead.lock").exists());
    assert!(folder.exists());
    assert_ne!(next.place.folder().unwrap(), folder);
}

#[test]
fn a_tree_of_any_depth_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    std::fs::create_dir(&root).unwrap();
    // Deeper than a path can name, as a guest makes it: from the inside.
    let mut at = std::fs::File::open(&root).unwrap();
    for _ in 0..5000 {
        let path = host_path::again(&at).join("d");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(host_path::again(&at).join("f"), "x").unwrap();
        at = std::fs::File::open(&path).unwrap();
    }
    symlink("/", root.join("away")).unwrap();
    place::remove(&root);
    assert!(!root.exists());
}

#[tokio::test]
async fn files_follow_all_at_once() {
    let kept = Kept::new(Arc::default());
    let (old, new) = (
        workload(&[("conf", files(&[("a", "1"), ("b/c", "1"), ("gone", "1")]))]),
        workload(&[("conf", files(&[("a", "2"), ("b/c", "2"), ("d", "2")]))]),
    );
    kept.slots(&old, &with_files()).await.unwrap();
    let path = kept.volumes.lock().files["conf"].0.clone();
    let read = |name: &str| std::fs::read_to_string(path.join(name)).ok();
    assert_eq!(read("a").as_deref(), Some("1"));
    assert_eq!(read("gone").as_deref(), Some("1"));
    let mode = std::fs::metadata(path.join("b/c"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o400);
    let version = std::fs::read_link(path.join("..data")).unwrap();
    assert_eq!(
        std::fs::read_link(path.join("a")).unwrap(),
        Path::new("..data/a")
    );

    kept.follow(&new).await;
    assert_eq!(read("a").as_deref(), Some("2"));
    assert_eq!(read("b/c").as_deref(), Some("2"));
    assert_eq!(read("d").as_deref(), Some("2"));
    assert!(std::fs::symlink_metadata(path.join("gone")).is_err());
    assert!(
        !path.join(&version).exists(),
        "the former version is removed"
    );

    kept.follow(&new).await;
    let same = std::fs::read_link(path.join("..data")).unwrap();
    kept.slots(&new, &with_files()).await.unwrap();
    assert_eq!(
        std::fs::read_link(path.join("..data")).unwrap(),
        same,
        "nothing to do"
    );
}

#[tokio::test]
async fn names_of_files_lead_nowhere_else() {
    for name in ["../a", "/a", "..data", "a/../../b"] {
        let kept = Kept::new(Arc::default());
        let workload = workload(&[("conf", files(&[(name, "1")]))]);
        let slots = kept.slots(&workload, &with_files()).await;
        let fault = slots.expect_err(name);
        assert!(fault.message.contains("no path of a file"), "{fault}");
    }
}

#[tokio::test]
async fn host_paths_stay_below_their_roots() {
    let dir = tempfile::tempdir().unwrap();
    let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
    for path in [root.join("in"), outside.clone()] {
        std::fs::create_dir_all(path).unwrap();
    }
    std::fs::write(root.join("file"), "x").unwrap();
    symlink(&outside, root.join("out")).unwrap();
    symlink("in", root.join("alias")).unwrap();
    symlink(&root, dir.path().join("root-alias")).unwrap();
    let allowing = |root: &Path| VolumeStore::open(None, &[root.to_owned()]).unwrap();

    for (path, part) in [
        (outside.clone(), "below no directory that this host allows"),
        (root.join("out"), "leads by a symbolic link"),
        (root.join("../outside"), "has `.` or `..` in it"),
        (root.join("lost"), "does not exist on this node"),
        (root.join("file"), "is no directory"),
        (PathBuf::from("in"), "not an absolute path"),
        (dir.path().join("root-else"), "below no directory"),
    ] {
        let fault = refusal(allowing(&root), &path).await;
        assert!(
            fault.message.starts_with("spec.volumes[0].hostPath.path: "),
            "{fault}"
        );
        assert!(fault.message.contains(part), "{part}: {fault}");
    }
    let fault = refusal(VolumeStore::default(), &root.join("in")).await;
    assert!(fault.message.contains("it allows none"), "{fault}");
    assert!(fault.message.contains("--host-path-root"), "{fault}");

    for (allowed, path) in [
        (root.clone(), root.join("in")),
        (root.clone(), root.join("alias")),
        (root.clone(), root.clone()),
        (
            dir.path().join("root-alias"),
            dir.path().join("root-alias/in"),
        ),
        (dir.path().join("root-alias"), root.join("in")),
    ] {
        let kept = Kept::new(Arc::new(allowing(&allowed)));
        let workload = workload(&[("v", VolumeSource::HostPath(path.clone()))]);
        let slots = kept.slots(&workload, &with_files()).await;
        assert_eq!(slots.unwrap()[0].len(), 1, "{}", path.display());
    }
    let error = VolumeStore::open(None, &[root.join("lost")]).unwrap_err();
    assert!(
        error.to_string().starts_with("--host-path-root "),
        "{error}"
    );
}

#[tokio::test]
async fn a_mount_of_nothing_names_its_component() {
    let mut workload = workload(&[("v", VolumeSource::default())]);
    workload.components[0].mounts[0].volume = "w".to_owned();
    let kept = Kept::new(Arc::default());
    let fault = kept
        .slots(&workload, &with_files())
        .await
        .expect_err("a fault");
    assert_eq!(fault.reason, Reason::InvalidSpec);
    assert!(
        fault.message.contains("main") && fault.message.contains("`w` is no volume"),
        "{fault}"
    );
}
