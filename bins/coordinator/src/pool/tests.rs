use std::sync::Arc;

use tokio_test::{assert_pending, assert_ready, task};

use super::*;

fn id(hostname: &str) -> MachineId {
    MachineId {
        host_type: "host".into(),
        hostname: hostname.into(),
    }
}

fn pool_with(hostnames: &[&str]) -> (Arc<Pool>, Vec<Arc<Link>>) {
    let pool = Arc::new(Pool::default());
    let links: Vec<_> = hostnames
        .iter()
        .map(|name| Arc::new(Link::unserved(id(name))))
        .collect();
    for link in &links {
        pool.join(link.clone(), None).unwrap();
    }
    (pool, links)
}

fn usage(pool: &Pool, hostname: &str) -> Option<Usage> {
    pool.snapshot()
        .machines
        .into_iter()
        .find(|machine| machine.id.hostname == hostname)
        .map(|machine| machine.usage)
}

#[tokio::test]
async fn an_idle_machine_is_taken_at_once_and_given_back_on_drop() {
    let (pool, _links) = pool_with(&["a"]);
    let ticket = pool.queue("host");
    let reservation = ticket.machine().await;
    assert_eq!(usage(&pool, "a"), Some(Usage::Reserved));
    drop(reservation);
    assert_eq!(usage(&pool, "a"), Some(Usage::Idle));
}

#[tokio::test]
async fn who_waits_longest_is_served_first() {
    let (pool, _links) = pool_with(&["a"]);
    let (first, second) = (pool.queue("host"), pool.queue("host"));
    assert_eq!((first.ahead(), second.ahead()), (0, 1));
    let mut second_wait = task::spawn(second.machine());
    assert_pending!(
        second_wait.poll(),
        "the first place in the queue has not been served"
    );
    let reservation = first.machine().await;
    reservation.lease("user-al-t-0");
    drop(first);
    assert!(second_wait.is_woken());
    assert_pending!(second_wait.poll(), "the machine is leased");
    pool.release(&id("a"));
    pool.join(Arc::new(Link::unserved(id("a"))), None).unwrap();
    assert!(second_wait.is_woken());
    let reservation = assert_ready!(second_wait.poll());
    assert_eq!(reservation.machine, id("a"));
}

#[tokio::test]
async fn who_leaves_the_queue_holds_nobody_up() {
    let (pool, _links) = pool_with(&["a"]);
    let (first, second) = (pool.queue("host"), pool.queue("host"));
    let mut wait = task::spawn(second.machine());
    assert_pending!(wait.poll());
    drop(first);
    assert!(wait.is_woken());
    assert_ready!(wait.poll());
}

#[tokio::test]
async fn other_host_types_are_another_queue() {
    let (pool, _links) = pool_with(&["a"]);
    let other = pool.queue("other");
    let mut wait = task::spawn(other.machine());
    assert_pending!(wait.poll());
    assert_eq!(pool.queue("host").ahead(), 0);
}

#[tokio::test]
async fn a_leased_machine_that_goes_away_keeps_its_place() {
    let (pool, links) = pool_with(&["a"]);
    pool.queue("host").machine().await.lease("user-al-t-0");
    pool.leave(&links[0]);
    assert!(pool.link(&id("a")).is_none());
    assert!(pool.away_since(&id("a")).is_some());
    pool.join(
        Arc::new(Link::unserved(id("a"))),
        Some("user-al-t-0".into()),
    )
    .unwrap();
    assert_eq!(usage(&pool, "a"), Some(Usage::Leased("user-al-t-0".into())));
    assert!(pool.away_since(&id("a")).is_none());
}

#[tokio::test]
async fn an_idle_machine_that_goes_away_is_forgotten() {
    let (pool, links) = pool_with(&["a"]);
    pool.leave(&links[0]);
    assert_eq!(usage(&pool, "a"), None);
}

#[tokio::test]
async fn a_reservation_outlives_a_link_that_is_replaced() {
    let (pool, links) = pool_with(&["a"]);
    let reservation = pool.queue("host").machine().await;
    pool.leave(&links[0]);
    pool.join(Arc::new(Link::unserved(id("a"))), None).unwrap();
    assert_eq!(
        usage(&pool, "a"),
        Some(Usage::Reserved),
        "nobody else may have it yet"
    );
    reservation.lease("user-al-t-0");
    assert_eq!(usage(&pool, "a"), Some(Usage::Leased("user-al-t-0".into())));
}

#[tokio::test]
async fn a_reserved_machine_that_is_gone_for_good_is_forgotten() {
    let (pool, links) = pool_with(&["a"]);
    let reservation = pool.queue("host").machine().await;
    pool.leave(&links[0]);
    drop(reservation);
    assert_eq!(usage(&pool, "a"), None);
}

#[tokio::test]
async fn an_old_link_that_ends_late_does_not_take_the_new_one_with_it() {
    let (pool, links) = pool_with(&["a"]);
    pool.leave(&links[0]);
    pool.join(Arc::new(Link::unserved(id("a"))), None).unwrap();
    pool.leave(&links[0]);
    assert!(pool.link(&id("a")).is_some());
}

#[tokio::test]
async fn two_machines_cannot_share_a_name() {
    let (pool, links) = pool_with(&["a"]);
    let Occupied(present) = pool
        .join(Arc::new(Link::unserved(id("a"))), None)
        .unwrap_err();
    assert!(Arc::ptr_eq(&present, &links[0]));
}

#[tokio::test]
async fn release_cuts_the_link() {
    let (pool, links) = pool_with(&["a"]);
    pool.queue("host").machine().await.lease("user-al-t-0");
    pool.release(&id("a"));
    links[0].closed().await;
    assert_eq!(usage(&pool, "a"), None);
}

#[tokio::test]
async fn only_idle_machines_are_checked_and_the_ill_are_cut_off() {
    let (pool, _links) = pool_with(&["a", "b", "c"]);
    let reservation = pool.queue("host").machine().await;
    assert_eq!(reservation.machine, id("a"));
    let checked = pool.start_checks();
    let names: Vec<_> = checked
        .iter()
        .map(|link| link.id.hostname.as_str())
        .collect();
    assert_eq!(names, ["b", "c"]);
    let ticket = pool.queue("host");
    let mut wait = task::spawn(ticket.machine());
    assert_pending!(
        wait.poll(),
        "a machine that is being checked is not handed out"
    );
    pool.end_check(&checked[1], Health::Ill);
    checked[1].closed().await;
    assert_pending!(wait.poll());
    pool.end_check(&checked[0], Health::Well);
    assert_eq!(assert_ready!(wait.poll()).machine, id("b"));
}

#[tokio::test]
async fn a_machine_that_comes_back_as_another_process_was_restarted() {
    let pool = Pool::default();
    let come = |process, lease: Option<&str>| {
        let mut link = Link::unserved(id("a"));
        link.process = process;
        let link = Arc::new(link);
        pool.join(link.clone(), lease.map(str::to_owned)).unwrap();
        link
    };
    // Nobody has it; who has it is not told of what was before; nor where nobody knows what was before.
    pool.leave(&come(Some(1), None));
    pool.leave(&come(Some(2), Some("one")));
    pool.leave(&come(Some(2), Some("one")));
    pool.leave(&come(None, Some("one")));
    assert_eq!(pool.restarted(&id("a")), None);
    pool.leave(&come(Some(3), Some("one")));
    assert_eq!(pool.restarted(&id("a")), None);

    pool.leave(&come(Some(4), Some("one")));
    let restarted = pool.restarted(&id("a"));
    assert!(restarted.is_some());
    pool.leave(&come(Some(4), Some("one")));
    assert_eq!(pool.restarted(&id("a")), restarted);
    pool.leave(&come(Some(5), Some("two")));
    assert_eq!(pool.restarted(&id("a")), None);
}

#[tokio::test]
async fn machines_are_counted_by_what_they_do() {
    let (pool, links) = pool_with(&["away", "idle", "leased", "reserved", "unfit"]);
    assert_eq!(pool.snapshot().counts("other"), Counts::default());
    let mut taken = Vec::new();
    for _ in &links {
        taken.push(pool.queue("host").machine().await);
    }
    let mut take = |hostname: &str| {
        let index = taken.iter().position(|taken| taken.machine == id(hostname));
        taken.swap_remove(index.unwrap())
    };
    take("away").lease("one");
    pool.leave(&links[0]);
    take("leased").lease("two");
    take("unfit").set_aside(Unhealthy::LowDisk);
    drop(take("idle"));
    let counts = Counts {
        there: 4,
        idle: 1,
        in_use: 3,
        waiting: 0,
    };
    assert_eq!(pool.snapshot().counts("host"), counts);
    let tickets = [pool.queue("host"), pool.queue("other")];
    assert_eq!(
        pool.snapshot().counts("host"),
        Counts {
            waiting: 1,
            ..counts
        }
    );
    drop(tickets);
}

#[tokio::test]
async fn a_machine_that_is_set_aside_is_for_nobody_until_it_is_well() {
    let (pool, _links) = pool_with(&["a"]);
    let reservation = pool.queue("host").machine().await;
    reservation.set_aside(Unhealthy::LowDisk);
    let unfit = Some(Usage::Unfit(Unhealthy::LowDisk));
    assert_eq!(usage(&pool, "a"), unfit);
    let ticket = pool.queue("host");
    let mut wait = task::spawn(ticket.machine());
    assert_pending!(wait.poll());
    let since = pool.snapshot().machines[0].since;
    for health in [Health::Unfit(Unhealthy::LowDisk), Health::Well] {
        assert_eq!(usage(&pool, "a"), unfit);
        let checked = pool.start_checks();
        assert_eq!(checked.len(), 1);
        assert_pending!(wait.poll());
        assert_eq!(pool.snapshot().machines[0].since, since);
        pool.end_check(&checked[0], health);
    }
    assert_eq!(assert_ready!(wait.poll()).machine, id("a"));
}

#[tokio::test]
async fn joined_waits_for_that_many() {
    let (pool, _links) = pool_with(&["a"]);
    let waiting_pool = pool.clone();
    let mut joined = task::spawn(waiting_pool.joined(2));
    assert_pending!(joined.poll());
    pool.join(Arc::new(Link::unserved(id("b"))), None).unwrap();
    assert_ready!(joined.poll());
}

#[tokio::test]
async fn a_machine_without_a_buildlet_is_there_and_comes_back_at_once() {
    let pool = Arc::new(Pool::default());
    pool.set_standing([id("s")].into());
    assert!(pool.is_standing(&id("s")));
    let (first, second) = (pool.queue("host"), pool.queue("host"));
    let reservation = first.machine().await;
    assert!(reservation.link.is_none());
    reservation.lease("user-al-t-0");
    drop(first);
    let mut wait = task::spawn(second.machine());
    assert_pending!(wait.poll());
    assert_eq!(pool.away_since(&id("s")), None);
    pool.release(&id("s"));
    assert!(wait.is_woken());
    let reservation = assert_ready!(wait.poll());
    assert_eq!(reservation.machine, id("s"));
}

#[tokio::test]
async fn a_machine_that_stands_no_more_leaves_when_nobody_has_it() {
    let pool = Arc::new(Pool::default());
    pool.set_standing([id("a"), id("b")].into());
    let ticket = pool.queue("host");
    ticket.machine().await.lease("user-al-t-0");
    pool.set_standing(BTreeSet::new());
    assert_eq!(usage(&pool, "a"), Some(Usage::Leased("user-al-t-0".into())));
    assert_eq!(usage(&pool, "b"), None);
    pool.release(&id("a"));
    assert_eq!(usage(&pool, "a"), None);
}

#[tokio::test]
async fn a_machine_that_loses_its_buildlet_by_configuration_is_cut_off() {
    let (pool, links) = pool_with(&["a"]);
    pool.set_standing([id("a")].into());
    links[0].closed().await;
    pool.leave(&links[0]);
    assert!(pool.is_standing(&id("a")));
    assert_eq!(usage(&pool, "a"), Some(Usage::Idle));
}
