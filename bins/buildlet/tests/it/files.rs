//! `/write`, `/ls` and `/removeall`.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::support::{AUTHORIZATION, Served, form};

#[tokio::test]
async fn files_are_written_with_their_mode() {
    let served = Served::start().await;
    let reply = served
        .ask("PUT", "/write?path=a/b.txt&mode=420", "hello")
        .await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "OK"));
    let reply = served
        .ask("PUT", "/write?path=a/b.txt&mode=493", "longer hello")
        .await;
    assert_eq!(reply.status, 200);
    let file = served.work().join("a/b.txt");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "longer hello");
    assert_eq!(
        file.metadata().unwrap().permissions().mode() & 0o7777,
        0o755
    );
}

#[tokio::test]
async fn nothing_is_written_through_a_link_that_leads_out() {
    let served = Served::start().await;
    symlink("..", served.work().join("out")).unwrap();
    let reply = served
        .ask("PUT", "/write?path=out/stolen&mode=420", "x")
        .await;
    assert_eq!(reply.status, 500);
    assert!(!served.outside().join("stolen").exists());

    std::fs::write(served.outside().join("secret"), "kept").unwrap();
    symlink("../secret", served.work().join("link")).unwrap();
    let reply = served.ask("PUT", "/write?path=link&mode=420", "x").await;
    assert_eq!(reply.status, 200);
    assert_eq!(
        std::fs::read_to_string(served.outside().join("secret")).unwrap(),
        "kept"
    );
}

#[tokio::test]
async fn a_client_that_dies_in_an_upload_leaves_nothing() {
    let served = Served::start().await;
    std::fs::write(served.work().join("a"), "old").unwrap();
    for target in ["/write?path=a&mode=420", "/writetgz"] {
        let mut tcp = served.connect().await;
        let head = format!(
            "PUT {target} HTTP/1.1\r\nHost: \r\nContent-Length: 1000000\r\nAuthorization: Basic {AUTHORIZATION}\r\n\r\n"
        );
        tcp.write_all(head.as_bytes()).await.unwrap();
        tcp.write_all(&[0x1f, 0x8b, 8, 0, 0]).await.unwrap();
        wait_for("an unfinished file", || names(&served).len() == 2).await;
        drop(tcp);
        wait_for("its end", || names(&served) == ["a"]).await;
    }
    assert_eq!(
        std::fs::read_to_string(served.work().join("a")).unwrap(),
        "old"
    );
}

#[tokio::test]
async fn listings_are_as_go_writes_them() {
    let served = Served::start().await;
    let reply = served.ask("GET", "/ls", "").await;
    assert_eq!((reply.status, reply.text().as_str()), (200, ""));

    served
        .ask("PUT", "/write?path=a/b.txt&mode=420", "hello")
        .await;
    served.ask("PUT", "/write?path=a.txt&mode=420", "").await;
    served
        .ask("PUT", "/write?path=skipped/c&mode=420", "")
        .await;
    let file = std::fs::File::options()
        .write(true)
        .open(served.work().join("a/b.txt"))
        .unwrap();
    file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1_795_448_053))
        .unwrap();
    symlink("b.txt", served.work().join("a/l")).unwrap();
    let reply = served
        .ask("GET", "/ls?recursive=true&digest=1&skip=skipped&dir=", "")
        .await;
    let text = reply.text();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "drwxr-xr-x\ta/");
    assert_eq!(
        lines[1],
        "-rw-r--r--\ta/b.txt\t5\t2026-11-23T15:34:13Z\taaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d"
    );
    assert_eq!(lines[2], "Lrwxrwxrwx\ta/l");
    assert!(lines[3].starts_with("-rw-r--r--\ta.txt\t0\t"), "{text}");
    assert_eq!(lines.len(), 4, "{text}");

    let shallow = served.ask("GET", "/ls", "").await.text();
    assert!(
        shallow.contains("drwxr-xr-x\tskipped/\n") && !shallow.contains("b.txt"),
        "{shallow}"
    );
    let missing = served.ask("GET", "/ls?dir=nothing", "").await;
    assert_eq!(missing.status, 500);
    assert!(missing.text().starts_with("Walk error: "), "{missing:?}");
}

#[tokio::test]
async fn trees_are_removed_also_where_they_are_read_only() {
    let served = Served::start().await;
    for path in ["keep/a", "gone/deep/b"] {
        served
            .ask("PUT", &format!("/write?path={path}&mode=292"), "x")
            .await;
    }
    let deep = served.work().join("gone/deep");
    std::fs::set_permissions(&deep, PermissionsExt::from_mode(0o500)).unwrap();
    symlink("../..", served.work().join("gone/up")).unwrap();
    let paths = form(&[("path", "gone"), ("path", "never/was")]);
    let reply = served.ask("POST", "/removeall", paths).await;
    assert_eq!((reply.status, reply.text().as_str()), (200, ""));
    assert_eq!(names(&served), ["keep"]);
    assert_eq!(served.ask("POST", "/removeall", "path=.").await.status, 200);
    assert_eq!(names(&served), [""; 0]);
    assert!(served.work().is_dir());
}

/// What is in the work directory.
pub(crate) fn names(served: &Served) -> Vec<String> {
    let entries = std::fs::read_dir(served.work()).unwrap();
    let mut names: Vec<_> = entries
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Waits until something outside of us has happened.
pub(crate) async fn wait_for(what: &str, mut happened: impl FnMut() -> bool) {
    let poll = async {
        while !happened() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), poll)
        .await
        .expect(what);
}
