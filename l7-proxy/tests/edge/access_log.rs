//! The access log's file: who may read it, and what is said when it can't be written.

use std::os::unix::fs::{MetadataExt, symlink};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::backend::Backend;
use crate::client;
use crate::proxy::{self, Proxy, eventually};

/// `more` goes into `[access_log]`.
fn start(more: &str, app: &Backend) -> Proxy {
    Proxy::start(&format!(
        "{more}\n[[listeners]]\nname = \"web\"\naddress = \"{{address}}:8080\"\n\
         [upstreams.app]\nbackends = [{{ address = \"{}\" }}]\n[[routes]]\nupstream = \"app\"\n",
        app.address
    ))
}

#[test]
fn its_permissions_are_those_that_are_configured_after_rotation_too() {
    let app = Backend::start("app");
    for (mode, expected) in [("0640", 0o640), ("0604", 0o604)] {
        let proxy = start(&format!("mode = \"{mode}\""), &app);
        let file = proxy.file("access.log");
        let mode = || {
            std::fs::metadata(&file)
                .map(|file| file.mode() & 0o777)
                .ok()
        };
        assert_eq!(mode(), Some(expected));
        std::fs::rename(&file, proxy.file("access.log.1")).expect("rename");
        eventually("it is made anew", || {
            client::get(proxy.web(), "a", "/echo");
            std::thread::sleep(Duration::from_millis(300));
            mode() == Some(expected)
        });
    }
}

#[test]
fn its_group_is_the_one_that_is_configured_after_rotation_and_reload_too() {
    let app = Backend::start("app");
    let proxy = start("group = 65534", &app);
    let file = proxy.file("access.log");
    let group = || std::fs::metadata(&file).map(|file| file.gid()).ok();
    assert_eq!(group(), Some(65_534));
    std::fs::rename(&file, proxy.file("access.log.1")).expect("rename");
    eventually("it is made anew", || {
        client::get(proxy.web(), "a", "/echo");
        std::thread::sleep(Duration::from_millis(300));
        group() == Some(65_534)
    });

    proxy.rewrite(|text| text.replace("group = 65534", "group = \"root\""));
    proxy.command("reload");
    assert_eq!(group(), Some(0));
    proxy.rewrite(|text| text.replace("group = \"root\"", "group = \"no-such-group\""));
    let refused = proxy.ask("reload").expect_err("there is no such group");
    assert!(
        refused.contains("access_log.group: ") && refused.contains("there is no such group"),
        "{refused}"
    );
}

#[test]
fn a_full_disk_is_told_with_path_and_reason_and_what_is_lost_is_counted() {
    let app = Backend::start("app");
    let proxy = start("", &app);
    let dropped = |reason: &str| proxy.metric("weir_l7_access_log_dropped_total", &[reason]);
    assert!(
        proxy
            .metrics()
            .contains("weir_l7_access_log_dropped_total{reason=\"failed\"} 0")
    );
    let file = proxy.file("access.log");
    std::fs::remove_file(&file).expect("remove");
    symlink("/dev/full", &file).expect("link");
    eventually("lines are lost", || {
        client::get(proxy.web(), "a", "/lost");
        std::thread::sleep(Duration::from_millis(300));
        dropped("failed") >= 1.0
    });
    let said = proxy.said();
    let warning = said
        .lines()
        .find(|line| line.contains("lines are lost"))
        .expect("a warning");
    assert!(
        warning.contains(&format!("path={}", file.display()))
            && warning.contains("No space left on device"),
        "{warning}"
    );
    assert_eq!(dropped("slow"), 0.0);

    std::fs::remove_file(&file).expect("remove");
    eventually("it is written again", || {
        client::get(proxy.web(), "a", "/kept");
        std::thread::sleep(Duration::from_millis(300));
        proxy.said().contains("the access log is written again")
    });
    proxy.logged(|entry| entry["target"] == "/kept");

    // The log is another one from here on; what the one before lost stays lost.
    let lost = dropped("failed");
    proxy.rewrite(|text| text.replace("/access.log", "/second.log"));
    proxy.command("reload");
    assert_eq!(dropped("failed"), lost);
}

#[test]
fn a_group_that_the_process_could_not_set_is_warned_of_by_name_before_it_starts() {
    let folder = tempfile::tempdir().expect("folder");
    let config = folder.path().join("l7.toml");
    let path = folder.path().join("access.log");
    let text = format!(
        "node.id = \"a\"\nadmin.listen = \"{}:9402\"\nlisteners = [{{ name = \"web\", address = \"127.0.0.1:80\" }}]\n\
         routes = [{{ upstream = \"app\" }}]\nupstreams.app.backends = [{{ address = \"127.0.0.1:1\" }}]\n\
         [access_log]\npath = \"{}\"\ngroup = \"daemon\"\n",
        proxy::address(),
        path.display()
    );
    std::fs::write(&config, text).expect("write");
    let check = |arguments: &[&str], command: &str| {
        let done = Command::new("setpriv")
            .args(arguments)
            .arg(env!("CARGO_BIN_EXE_l7-proxy"))
            .args([command, "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .output()
            .expect("setpriv is installed");
        let said = String::from_utf8(done.stderr).expect("text");
        (done.status.success(), said)
    };
    let doubt = format!(
        "{}:8: access_log.group: user root can't give a file to group daemon: only a member may, or who has CAP_CHOWN",
        config.display()
    );
    let (well, said) = check(&["--bounding-set=-chown", "--clear-groups"], "check");
    assert!(
        well && said.contains(&format!("warning: {doubt}")),
        "{said}"
    );
    // By whom it is run decides.
    for arguments in [
        &["--bounding-set=-chown", "--groups=daemon"][..],
        &["--clear-groups"],
    ] {
        let (well, said) = check(arguments, "check");
        assert!(well && !said.contains("access_log"), "{said}");
    }
    let (well, said) = check(&["--bounding-set=-chown", "--clear-groups"], "run");
    let refused = format!("cannot open the access log {}: {doubt}: ", path.display());
    assert!(!well && said.contains(&refused), "{said}");
}
