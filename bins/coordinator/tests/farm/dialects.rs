//! Machines that register in the dialects of Go's buildlets.

use http::Request;
use revdial::handshake::{Dialect, HandshakeError, upgrade};
use revdial::{Config, Listener};
use tokio::task::JoinSet;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn machines_of_gos_dialects_are_leased_commanded_and_found_again() {
    for dialect in [Dialect::V1, Dialect::V2] {
        in_time(async {
            let farm = Farm::start("").await;
            let machine = join(&farm, dialect).await;
            let alice = farm.client("alice", ALICE);
            let instance = alice.create("type", |_| {}).await.unwrap();
            let buildlet = alice.instance(&instance.name).unwrap();
            // Larger than what a link of the first dialect may hold for a reader.
            let large = vec![b'x'; 2 << 20];
            buildlet
                .write(path("large"), 0o644, Box::pin(io::Cursor::new(large)))
                .await
                .unwrap();
            let mut request = ExecRequest::system("sh");
            request.args = vec!["-c".into(), "wc -c <large; echo $FARM; exit 3".into()];
            assert_eq!(
                run(&buildlet, request).await,
                ("2097152\ngreen\n".into(), "exit status 3".into())
            );

            // The machine is lost, and its lease waits for it.
            let mut running = buildlet.exec(sleeper()).await.unwrap();
            first_line(&mut running.output).await;
            machine.kill(&farm.pool).await;
            let mut rest = Vec::new();
            let read = running.output.read_to_end(&mut rest).await;
            let state = running.state.await;
            assert!(
                read.is_err() || state.is_err(),
                "a cut command is no success: {read:?} {state:?}"
            );
            let error = buildlet.work_dir().await.unwrap_err();
            assert!(error.message().contains("not connected"), "{error}");

            let _machine = join(&farm, dialect).await;
            assert_eq!(alice.list().await.unwrap()[0].name, instance.name);
            assert_eq!(run(&buildlet, ExecRequest::system("true")).await.1, "ok");
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_lease_cuts_what_runs_on_machines_of_gos_dialects() {
    for dialect in [Dialect::V1, Dialect::V2] {
        in_time(async {
            let farm = Farm::start("").await;
            let _machine = join(&farm, dialect).await;
            let alice = farm.client("alice", ALICE);
            let instance = alice.create("type", |_| {}).await.unwrap();
            let buildlet = alice.instance(&instance.name).unwrap();
            let mut running = buildlet.exec(sleeper()).await.unwrap();
            first_line(&mut running.output).await;
            buildlet.halt().await.unwrap();
            let mut rest = Vec::new();
            let read = running.output.read_to_end(&mut rest).await;
            let state = running.state.await;
            assert!(read.is_err() || state.is_err(), "{read:?} {state:?}");
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_taken_while_its_machine_answers_whatever_its_dialect() {
    in_time(async {
        for dialect in [Dialect::V1, Dialect::V2] {
            let farm = Farm::start("").await;
            let _machine = join(&farm, dialect).await;
            let error = register(&farm, Dialect::V1).await.err().unwrap();
            let HandshakeError::Refused { status, .. } = error else {
                panic!("{error}");
            };
            assert_eq!(status, 409);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_nobody_waits_for_is_sent_away() {
    in_time(async {
        let farm = Farm::start("").await;
        let _machine = join(&farm, Dialect::V2).await;
        let id = "0".repeat(32);
        for (line, status, text) in [
            (
                format!("GET /revdial?revdial.dialer={id}"),
                400,
                "unknown dialer\n",
            ),
            ("GET /revdial".to_owned(), 400, "unknown dialer\n"),
            (
                format!("POST /revdial?revdial.dialer={id}"),
                405,
                "expected GET request to revdial conn handler\n",
            ),
        ] {
            let reply = farm
                .raw(&format!("{line} HTTP/1.1\r\nHost: \r\n\r\n"))
                .await;
            assert!(reply.starts_with(&format!("HTTP/1.1 {status} ")), "{reply}");
            assert!(reply.ends_with(text), "{reply}");
        }
    })
    .await;
}

/// Registers the way that Go's buildlets do, and gives the connection that is ours then.
async fn register(
    farm: &Farm,
    dialect: Dialect,
) -> Result<impl AsyncRead + AsyncWrite + Send + Unpin + use<>, HandshakeError> {
    let mut request = Request::get("/reverse")
        .header("x-go-host-type", "host")
        .header("x-go-builder-hostname", "m1")
        .header("x-go-builder-key", MACHINE_KEY);
    if let Some(version) = dialect.header_value() {
        request = request.header(Dialect::HEADER, version);
    }
    let stream = farm.connect().await.unwrap();
    let (control, _) = upgrade(stream, &request.body(()).unwrap()).await?;
    Ok(control)
}

/// Starts a buildlet that speaks `dialect`, and waits until it is in the pool.
async fn join(farm: &Farm, dialect: Dialect) -> Machine {
    let control = register(farm, dialect).await.unwrap();
    let (address, tls) = (farm.addresses.https, farm.tls.clone());
    let mut listener = match dialect {
        Dialect::V1 => Listener::v1(control, Config::default()),
        Dialect::V2 => Listener::v2(
            control,
            move || connect(address, tls.clone()),
            Config::default(),
        ),
        Dialect::V3 | _ => unreachable!("{dialect:?} is ours"),
    };
    let work_dir = farm.dir.path().join("work-m1");
    std::fs::create_dir_all(&work_dir).unwrap();
    let supervisor = buildlet::Supervisor::at(env!("CARGO_BIN_EXE_coordinator"));
    let jobs = buildlet::JobSettings::new(supervisor, farm.dir.path().join("jobs-m1"));
    let machine = buildlet::Machine::without_ssh(&work_dir, jobs).unwrap();
    let server = buildlet_proto::server::Server::new(machine, buildlet_proto::server::Auth::open());
    let task = AbortOnDropHandle::new(tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok(conn) = listener.accept().await {
            let server = server.clone();
            connections.spawn(async move { drop(server.serve(conn).await) });
        }
    }));
    farm.pool.joined(1).await;
    Machine { task }
}
