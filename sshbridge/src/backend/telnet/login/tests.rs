use super::*;

/// A server, and the time.
struct World {
    login: Login,
    now: Instant,
    start: Instant,
    /// What came of it.
    steps: Vec<String>,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let credentials = Credentials::new("gopher").unwrap().with_password("s3cret");
        Self {
            login: Login::new(credentials, now, now + Duration::from_secs(75)),
            now,
            start: now,
            steps: Vec::new(),
        }
    }

    fn says(mut self, text: &str) -> Self {
        for byte in text.bytes() {
            let step = self.login.push(self.now, byte);
            self.note(step);
        }
        self
    }

    /// Lets time pass, with every look that is due in it.
    fn after(mut self, time: Duration) -> Self {
        let end = self.now + time;
        let mut looks = 0;
        while self.steps.iter().all(|step| !is_last(step)) && self.login.next_look() <= end {
            self.now = self.now.max(self.login.next_look());
            let step = self.login.handle_timeout(self.now, Echo::Server);
            self.note(step);
            looks += 1;
            assert!(looks < 10, "the login looks again and again");
        }
        self.now = end;
        self
    }

    fn pause(self) -> Self {
        self.after(PROMPT_QUIET)
    }

    fn note(&mut self, step: Step) {
        let step = match step {
            Step::Wait => return,
            Step::Fail(error) => format!("fail: {error:?}"),
            Step::HandOver(text) => format!("session: {}", String::from_utf8_lossy(&text)),
            Step::SendPassword(password) => format!("password: {}", *password),
            Step::SendUser(user) => format!("user: {user}"),
        };
        self.steps.push(step);
    }

    #[track_caller]
    fn came_to<const N: usize>(self, steps: [&str; N]) {
        assert_eq!(self.steps, steps);
    }
}

fn is_last(step: &str) -> bool {
    step.starts_with("fail") || step.starts_with("session")
}

#[test]
fn an_account_and_a_password_are_sent_where_they_are_asked_for() {
    World::new()
        .says("Debian GNU/Linux 12\r\r\nvm login: ")
        .pause()
        .says("gopher\r\nPassword: ")
        .pause()
        .says("\r\nLast login: Tue\r\n$ ")
        .after(VERDICT_QUIET)
        .came_to([
            "user: gopher",
            "password: s3cret",
            "session: Last login: Tue\r\n$ ",
        ]);
}

#[test]
fn questions_are_known_by_their_ends() {
    for question in [
        "vm login: ",
        "login:",
        "user: ",
        "User name: ",
        "USERNAME:",
        "\x1b[1;1H\x1b[Klogin: \x1b[0m",
        "account name: ",
    ] {
        World::new()
            .says(question)
            .pause()
            .came_to(["user: gopher"]);
    }
    for question in [
        "password: ",
        "Password for gopher: ",
        "Passphrase:",
        "gopher's Password: ",
    ] {
        World::new()
            .says(question)
            .pause()
            .came_to(["password: s3cret"]);
    }
    for text in [
        "login",
        "login: now",
        "login:\r\n",
        "passing: by\r\n",
        "pass: a: ",
    ] {
        World::new().says(text).pause().came_to([]);
    }
}

#[test]
fn a_question_in_the_midst_of_an_announcement_is_not_answered() {
    World::new()
        .says("For help with login:")
        .after(PROMPT_QUIET / 2)
        .says(" call 555\r\nlogin: ")
        .after(PROMPT_QUIET / 2)
        .came_to([]);
}

#[test]
fn a_server_that_knows_the_account_asks_for_the_password_alone() {
    World::new()
        .says("\r\npassword: ")
        .pause()
        .says("\r\n*===\r\nC:\\>")
        .after(VERDICT_QUIET)
        .came_to(["password: s3cret", "session: *===\r\nC:\\>"]);
}

#[test]
fn an_account_without_a_password_is_handed_over() {
    World::new()
        .says("login: ")
        .pause()
        .says("gopher\r\nWelcome\r\n$ ")
        .after(NO_PASSWORD)
        .came_to(["user: gopher", "session: $ "]);
}

#[test]
fn the_echo_of_the_account_is_no_session() {
    World::new()
        .says("login: ")
        .pause()
        .says("gopher\r\n")
        .after(NO_PASSWORD * 3)
        .says("Password: ")
        .pause()
        .came_to(["user: gopher", "password: s3cret"]);
}

#[test]
fn a_refusal_is_known_whenever_it_comes() {
    for refusal in ["Login incorrect", "LOGIN FAILED", "The handle is invalid."] {
        let world = World::new()
            .says("password: ")
            .pause()
            .says("\r\n")
            .after(Duration::from_secs(3))
            .says(refusal);
        assert!(world.steps[1].starts_with("fail: Refused"), "{refusal}");
        assert_eq!(world.steps.len(), 2);
    }
}

#[test]
fn there_is_one_attempt() {
    World::new()
        .says("password: ")
        .pause()
        .says("\r\nHm.\r\nlogin: ")
        .after(VERDICT_QUIET)
        .came_to(["password: s3cret", "fail: AsksAgain"]);
    World::new()
        .says("login: ")
        .pause()
        .says("gopher\r\nlogin: ")
        .pause()
        .came_to(["user: gopher", "fail: AsksAgain"]);
}

#[test]
fn a_full_server_says_so_before_it_asks() {
    let text = "\r\nNo more connections are allowed to telnet server. Please try again later.";
    World::new()
        .says(text)
        .came_to(["fail: Refused(\"No more connections are allowed\")"]);
}

#[test]
fn a_mute_server_is_given_up_at_the_deadline() {
    let world = World::new().after(Duration::from_secs(74));
    assert!(world.steps.is_empty());
    let world = world.after(Duration::from_secs(1));
    assert_eq!(world.now, world.start + Duration::from_secs(75));
    world.came_to(["fail: TimedOut"]);
}

#[test]
fn a_silent_session_is_handed_over_after_a_while() {
    World::new()
        .says("password: ")
        .pause()
        .says("\r\n")
        .after(SILENCE)
        .came_to(["password: s3cret", "session: "]);
}

#[test]
fn a_password_is_not_sent_where_it_may_be_shown() {
    let mut world = World::new().says("password: ");
    world.now += PROMPT_QUIET;
    let step = world.login.handle_timeout(world.now, Echo::Unknown);
    world.note(step);
    world.came_to(["fail: WouldShow"]);
}

#[test]
fn an_account_without_password_here_answers_no_question() {
    let now = Instant::now();
    let credentials = Credentials::new("gopher").unwrap();
    let mut login = Login::new(credentials, now, now + Duration::from_secs(75));
    for byte in *b"Password: " {
        login.push(now, byte);
    }
    let step = login.handle_timeout(now + PROMPT_QUIET, Echo::Server);
    assert!(matches!(step, Step::Fail(LoginError::NoPassword)));
}

#[test]
fn the_last_words_before_the_password_are_told() {
    let closed = |text| World::new().says(text).login.closed().to_string();
    let told = "the telnet server closed the connection during the login";
    assert_eq!(closed(""), told);
    assert_eq!(
        closed("\x1b[2JToo many\x07 users\r\n\r\n"),
        format!("{told}: Too many users")
    );
    let world = World::new().says("password: ").pause().says("s3cret\r\n");
    assert_eq!(world.login.closed().to_string(), told);
}

#[test]
fn what_a_server_says_is_kept_within_bounds() {
    let world = World::new().says(&"x".repeat(3 * MAX_LINE));
    assert_eq!(world.login.line.text.len(), MAX_LINE);
    let flood = "y".repeat(MAX_SINCE);
    let world = World::new().says("password: ").pause().says(&flood);
    world.came_to(["password: s3cret", &format!("session: {flood}")]);
}
