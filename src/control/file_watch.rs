//! The configuration file, read again when it changes. Editors replace a file, Kubernetes swaps a
//! symbolic link on the way to it: so what is watched is every name that the path leads through by
//! a link, each in its directory, and the file's own.

use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use std::task::Poll;

use crate::control::{Control, Either, first};
use crate::engine::{self, Watcher};
use crate::limits;

/// For ever, if there is a file; sleeps while `hot_reload.watch` is off.
pub(super) async fn watch(control: Rc<Control>) {
    let Some(file) = control.source.provider.file().map(Path::to_path_buf) else { return };
    loop {
        wanted(&control, true).await;
        let watcher = match Watcher::new() {
            Ok(watcher) => watcher,
            Err(error) => {
                log::warn!(
                    "the configuration file is not watched: inotify: {error}; raise \
                     fs.inotify.max_user_instances, or reload with SIGHUP"
                );
                return;
            }
        };
        let following = Box::pin(follow(&control, &file, watcher));
        first(following, wanted(&control, false)).await;
    }
}

/// Until `hot_reload.watch` is on, or off.
pub(super) async fn wanted(control: &Control, on: bool) {
    std::future::poll_fn(|context| {
        if control.plan().hot_reload.watch == on {
            return Poll::Ready(());
        }
        control.poll_changed(context);
        Poll::Pending
    })
    .await;
}

async fn follow(control: &Rc<Control>, file: &Path, mut watcher: Watcher) {
    let mut complained = false;
    loop {
        let path = file.to_path_buf();
        let names = control.watch.pool().run(move || names_on_the_way(&path)).await;
        let names = names.unwrap_or_default();
        let whole = watcher.watch(&names).is_ok() && !names.is_empty();
        if !whole && !std::mem::replace(&mut complained, true) {
            log::warn!("{} is not there, or cannot be watched; looking for it", file.display());
        }
        complained &= !whole;
        // After the watches are in place: a change before that is not missed.
        if whole {
            control.reload_changed().await;
        }
        let look = engine::sleep(limits::RELOAD_LOOK_INTERVAL);
        let changed = watcher.changed();
        if whole {
            if changed.await.is_err() {
                return;
            }
        } else if let Either::Second(()) = first(changed, look).await {
            continue;
        }
        quiet(&watcher).await;
    }
}

/// Until nothing has happened for a while.
pub(super) async fn quiet(watcher: &Watcher) {
    let end = engine::now() + limits::RELOAD_DEBOUNCE_MAX;
    while engine::now() < end {
        let silence = engine::sleep(limits::RELOAD_DEBOUNCE);
        if let Either::Second(()) = first(watcher.changed(), silence).await {
            return;
        }
    }
}

/// The directories and names that decide what `file` is: those of its symbolic links, and its own.
/// None when the way ends before a file is reached. Blocks.
fn names_on_the_way(file: &Path) -> Vec<(PathBuf, OsString)> {
    let mut names = Vec::new();
    if walk(file, &mut names).is_ok() { names } else { Vec::new() }
}

/// Adds the names up to where the way ends, if that is before the file.
pub(super) fn walk(file: &Path, names: &mut Vec<(PathBuf, OsString)>) -> io::Result<()> {
    let mut links = 0;
    let mut done = PathBuf::new();
    let mut left: Vec<OsString> = steps(&std::path::absolute(file)?);
    while let Some(step) = left.pop() {
        if step == "/" {
            done = PathBuf::from("/");
            continue;
        }
        if step == ".." {
            done.pop();
            continue;
        }
        let next = done.join(&step);
        let about = next.symlink_metadata();
        let is_link = about.as_ref().is_ok_and(|about| about.file_type().is_symlink());
        if is_link || left.is_empty() {
            names.push((done.clone(), step));
        }
        about?;
        if is_link {
            links += 1;
            if links > limits::RELOAD_LINKS_MAX {
                return Err(io::Error::from_raw_os_error(libc::ELOOP));
            }
            left.extend(steps(&next.read_link()?));
        } else {
            done = next;
        }
    }
    Ok(())
}

/// Of a path, last first.
fn steps(path: &Path) -> Vec<OsString> {
    let named = path.components().filter(|component| *component != Component::CurDir);
    let mut steps: Vec<OsString> =
        named.map(|component| component.as_os_str().to_owned()).collect();
    steps.reverse();
    steps
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(test: &str) -> Folder {
            let name = format!("corelane-way-{}-{test}", std::process::id());
            let path = std::env::temp_dir().canonicalize().unwrap().join(name);
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    #[test]
    fn a_plain_file_is_watched_in_its_directory() {
        let folder = Folder::new("plain");
        let file = folder.0.join("a.toml");
        fs::write(&file, "").unwrap();
        assert_eq!(names_on_the_way(&file), [(folder.0.clone(), "a.toml".into())]);
    }

    #[test]
    fn every_link_on_the_way_is_watched_as_a_config_map_has_them() {
        let folder = Folder::new("map");
        let at = |name: &str| folder.0.join(name);
        fs::create_dir(at("..2026")).unwrap();
        fs::write(at("..2026").join("a.toml"), "").unwrap();
        symlink("..2026", at("..data")).unwrap();
        symlink("..data/a.toml", at("a.toml")).unwrap();
        let names = names_on_the_way(&at("a.toml"));
        let expected = [
            (folder.0.clone(), "a.toml".into()),
            (folder.0.clone(), "..data".into()),
            (at("..2026"), "a.toml".into()),
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn links_in_a_circle_and_ways_to_nowhere_end() {
        let folder = Folder::new("circle");
        let at = |name: &str| folder.0.join(name);
        symlink("b", at("a")).unwrap();
        symlink("a", at("b")).unwrap();
        assert_eq!(names_on_the_way(&at("a")), []);
        assert_eq!(names_on_the_way(&at("none").join("x")), []);
    }
}
