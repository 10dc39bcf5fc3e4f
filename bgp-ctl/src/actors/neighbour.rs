//! One neighbour: owns its [`Session`], feeds it what happens and carries out what it says.

use std::hash::BuildHasher;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use actix::{
    Actor, ActorFutureExt, AsyncContext, Context, Handler, Message, ResponseFuture, SpawnHandle,
    WrapFuture,
};
use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::change::Becomes;
use crate::config::{BgpSection, NeighbourSettings};
use crate::error::Error;
use crate::metrics::NeighbourMetrics;
use crate::network;
use crate::route::Attributes;
use crate::session::{Action, Input, Session, SessionSettings, State};
use crate::status::{NeighbourStatus, ROUTER_WAIT, StatusBoard};

/// Messages waiting to be written. A neighbour that is so far behind is not reading.
const QUEUE: usize = 4096;

/// The VIP shall be announced.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Announce {
    pub(crate) vip: Ipv4Addr,
    pub(crate) attributes: Attributes,
}

/// The VIP shall not be announced.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Withdraw {
    pub(crate) vip: Ipv4Addr,
}

/// Withdraw everything, say farewell with this text, close; answered when that is done.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Stop {
    pub(crate) text: String,
    /// The neighbour is no longer one: it leaves the status, too.
    pub(crate) forget: bool,
}

/// Go on by these settings.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Reconfigure {
    pub(crate) section: BgpSection,
    pub(crate) settings: NeighbourSettings,
    pub(crate) becomes: Becomes,
}

/// The neighbour has connected to our listener.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Incoming(pub(crate) TcpStream);

/// Routes have changed since they were last sent.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Flush;

/// Bytes from a connection.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Received {
    connection: u64,
    bytes: Bytes,
}

/// A connection has ended, and not because we closed it.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Ended {
    connection: u64,
    why: String,
}

/// One neighbour.
#[derive(Debug)]
pub(crate) struct Neighbour {
    settings: NeighbourSettings,
    session: Session,
    status: StatusBoard,
    metrics: NeighbourMetrics,
    /// The session's connection.
    link: Option<Link>,
    /// An attempt to connect.
    attempt: Option<SpawnHandle>,
    /// A connection that waits for the session's decision.
    waiting: Option<TcpStream>,
    /// Connections that are writing their last words.
    closing: Vec<JoinHandle<()>>,
    /// Tells connections apart, so that news of an old one is not taken for the present one's.
    connections: u64,
    timer: Option<(Instant, SpawnHandle)>,
    flushing: bool,
    state: State,
    state_since_unix_ms: u64,
    /// Until when readiness waits for the first session.
    awaited_until: Option<Instant>,
    /// It is a neighbour no longer, and nothing is said of it any more.
    forgotten: bool,
}

fn session_settings(section: &BgpSection, settings: &NeighbourSettings) -> SessionSettings {
    SessionSettings {
        local_as: section.local_as,
        remote_as: settings.remote_as,
        router_id: section.router_id,
        hold_time: u16::try_from(settings.hold_time.as_secs()).unwrap_or(u16::MAX),
        connect_retry: settings.connect_retry,
        connect_retry_max: settings.connect_retry_max,
        connect_timeout: settings.connect_timeout,
        passive: settings.passive,
        next_hop: settings.next_hop,
        med: settings.med,
        local_pref: settings.local_pref,
        communities: settings.communities.clone(),
        // Random for each process and neighbour: the hasher's keys are.
        seed: std::hash::RandomState::new().hash_one(settings.address),
    }
}

#[derive(Debug)]
struct Link {
    connection: u64,
    queue: mpsc::Sender<Bytes>,
    task: JoinHandle<()>,
}

impl Neighbour {
    pub(crate) fn new(
        section: &BgpSection,
        settings: NeighbourSettings,
        status: StatusBoard,
    ) -> Self {
        let session = Session::new(session_settings(section, &settings));
        Self {
            metrics: NeighbourMetrics::new(settings.address),
            settings,
            session,
            status,
            link: None,
            attempt: None,
            waiting: None,
            closing: Vec::new(),
            connections: 0,
            timer: None,
            flushing: false,
            state: State::Idle,
            state_since_unix_ms: shared::bus::unix_ms(),
            awaited_until: Some(Instant::now() + ROUTER_WAIT),
            forgotten: false,
        }
    }

    fn handle_input(&mut self, context: &mut Context<Self>, input: Input<'_>) {
        let mut actions = self.session.handle(Instant::now(), input);
        // Carrying out can fail, which is an input again; it ends the connection, so this goes on once at most.
        while let Some(failure) = self.carry_out(context, actions) {
            actions = self.session.handle(Instant::now(), Input::Lost(&failure));
        }
        self.set_timer(context);
        self.report();
    }

    /// Why the session's connection is of no use, if it is.
    fn carry_out(&mut self, context: &mut Context<Self>, actions: Vec<Action>) -> Option<String> {
        let mut failure = None;
        for action in actions {
            match action {
                Action::Connect => self.connect(context),
                Action::AcceptIncoming => {
                    if let Err(error) = self.accept(context) {
                        failure = Some(error.to_string());
                    }
                }
                Action::RefuseIncoming(last_words) => {
                    if let Some(stream) = self.waiting.take() {
                        actix_rt::spawn(network::refuse(stream, last_words));
                    }
                }
                Action::Send(message) => {
                    if let Some(link) = &self.link
                        && link.queue.try_send(message).is_err()
                    {
                        failure.get_or_insert_with(|| {
                            "the neighbour does not read: queue full".to_owned()
                        });
                    }
                }
                Action::Close => {
                    self.close(context);
                    failure = None;
                }
                Action::Up => {
                    tracing::info!(neighbour = %self.settings.address, "BGP session established")
                }
                Action::Down(why) => {
                    tracing::warn!(neighbour = %self.settings.address, why, "BGP session down");
                }
            }
        }
        failure
    }

    fn connect(&mut self, context: &mut Context<Self>) {
        self.give_up_attempt(context);
        let settings = self.settings.clone();
        let attempt = async move { network::connect(&settings).await }.into_actor(self).map(
            |connected, actor: &mut Self, context: &mut Context<Self>| {
                actor.attempt = None;
                match connected.and_then(|stream| actor.take_over(context, stream)) {
                    Ok(local) => actor.handle_input(context, Input::Connected(local)),
                    Err(error) => {
                        let why = error.to_string();
                        tracing::debug!(neighbour = %actor.settings.address, why, "BGP connection failed");
                        actor.handle_input(context, Input::Lost(&why));
                    }
                }
            },
        );
        self.attempt = Some(context.spawn(attempt));
    }

    fn accept(&mut self, context: &mut Context<Self>) -> Result<(), Error> {
        self.give_up_attempt(context);
        let stream = self.waiting.take().ok_or(Error::Closed)?;
        self.take_over(context, stream).map(|_| ())
    }

    /// Makes `stream` the session's connection; our address of it.
    fn take_over(
        &mut self,
        context: &mut Context<Self>,
        stream: TcpStream,
    ) -> Result<Ipv4Addr, Error> {
        let local = network::local_address(&stream)?;
        self.connections += 1;
        let connection = self.connections;
        let (queue, receiver) = mpsc::channel(QUEUE);
        let actor = context.address();
        // RFC 9687 6: twice the hold time; its floor of 8 minutes is for full tables, which are never sent from here.
        let send_hold = (2 * self.settings.hold_time).max(Duration::from_secs(10));
        let task = actix_rt::spawn(async move {
            let received = |bytes| {
                let sending = actor.send(Received { connection, bytes });
                async move {
                    // An error means that the actor is gone, and this task soon with it.
                    let _ = sending.await;
                }
            };
            if let Err(why) = network::carry(stream, receiver, send_hold, received).await {
                actor.do_send(Ended {
                    connection,
                    why: why.to_string(),
                });
            }
        });
        self.link = Some(Link {
            connection,
            queue,
            task,
        });
        Ok(local)
    }

    fn close(&mut self, context: &mut Context<Self>) {
        self.give_up_attempt(context);
        if let Some(link) = self.link.take() {
            // Dropping the queue lets the task write what is left and close.
            self.closing.retain(|task| !task.is_finished());
            self.closing.push(link.task);
        }
    }

    fn give_up_attempt(&mut self, context: &mut Context<Self>) {
        if let Some(attempt) = self.attempt.take() {
            context.cancel_future(attempt);
        }
    }

    fn set_timer(&mut self, context: &mut Context<Self>) {
        let deadline = self.session.deadline();
        if self.timer.map(|(at, _)| at) == deadline {
            return;
        }
        if let Some((_, timer)) = self.timer.take() {
            context.cancel_future(timer);
        }
        self.timer = deadline.map(|at| {
            let wait = at.saturating_duration_since(Instant::now());
            let timer = context.run_later(wait, |actor, context| {
                actor.timer = None;
                actor.handle_input(context, Input::Tick);
            });
            (at, timer)
        });
    }

    fn report(&mut self) {
        let state = self.session.state();
        if state == State::Established {
            self.awaited_until = None;
        }
        if state != self.state {
            tracing::debug!(neighbour = %self.settings.address, from = ?self.state, to = ?state, "BGP session");
            self.state = state;
            self.state_since_unix_ms = shared::bus::unix_ms();
        }
        let advertised = self.session.advertised();
        self.metrics
            .report(state, advertised.len(), &self.session.counts());
        let status = NeighbourStatus {
            remote_as: self.settings.remote_as,
            state,
            since_unix_ms: self.state_since_unix_ms,
            router_id: self.session.peer_id(),
            hold_time: self.session.hold_time(),
            last_error: self.last_error(),
            advertised,
            counts: self.session.counts(),
            awaited_until: self.awaited_until,
        };
        self.status.change(|board| {
            match self.forgotten {
                true => board.neighbours.remove(&self.settings.address),
                false => board.neighbours.insert(self.settings.address, status),
            };
        });
    }

    /// Ends the session and begins it anew, with all that the neighbour should know.
    fn begin_anew(
        &mut self,
        context: &mut Context<Self>,
        settings: SessionSettings,
        keys: &[&str],
    ) {
        let routes = self.session.desired();
        let why = format!("configuration changed: {}", keys.join(", "));
        self.handle_input(context, Input::Stop(&why));
        self.session = Session::in_place_of(&self.session, settings);
        for (vip, attributes) in routes {
            self.session.announce(vip, attributes);
        }
        self.handle_input(context, Input::Start);
    }

    fn last_error(&self) -> Option<String> {
        let error = self.session.last_error()?;
        // The kernel drops segments with a wrong signature without a word to either side.
        let hint = if self.settings.password.is_some() && error.starts_with("no answer") {
            "; if the router is up, the TCP MD5 passwords may differ"
        } else {
            ""
        };
        Some(format!("{error}{hint}"))
    }

    fn routes_changed(&mut self, context: &mut Context<Self>) {
        // All changes of one turn go out together.
        if !self.flushing {
            self.flushing = true;
            context.notify(Flush);
        }
    }
}

impl Actor for Neighbour {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        self.handle_input(context, Input::Start);
    }
}

impl Handler<Announce> for Neighbour {
    type Result = ();

    fn handle(&mut self, Announce { vip, attributes }: Announce, context: &mut Self::Context) {
        self.session.announce(vip, attributes);
        self.routes_changed(context);
    }
}

impl Handler<Withdraw> for Neighbour {
    type Result = ();

    fn handle(&mut self, Withdraw { vip }: Withdraw, context: &mut Self::Context) {
        self.session.withdraw(vip);
        self.routes_changed(context);
    }
}

impl Handler<Flush> for Neighbour {
    type Result = ();

    fn handle(&mut self, _: Flush, context: &mut Self::Context) {
        self.flushing = false;
        self.handle_input(context, Input::Routes);
    }
}

impl Handler<Stop> for Neighbour {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, Stop { text, forget }: Stop, context: &mut Self::Context) -> Self::Result {
        self.forgotten = forget;
        self.handle_input(context, Input::Stop(&text));
        let closing = std::mem::take(&mut self.closing);
        Box::pin(async move {
            for task in closing {
                // A task that was aborted has nothing left to write.
                let _ = task.await;
            }
        })
    }
}

impl Handler<Reconfigure> for Neighbour {
    type Result = ();

    fn handle(&mut self, reconfigure: Reconfigure, context: &mut Self::Context) {
        let Reconfigure {
            section,
            settings,
            becomes,
        } = reconfigure;
        let session = session_settings(&section, &settings);
        match becomes {
            Becomes::Same => self.settings = settings,
            Becomes::Told => {
                self.settings = settings;
                self.handle_input(context, Input::Settings(&session));
            }
            Becomes::Restarted(keys) => {
                // A waiting connection was made by the settings before.
                self.waiting = None;
                self.settings = settings;
                self.begin_anew(context, session, &keys);
            }
        }
    }
}

impl Handler<Incoming> for Neighbour {
    type Result = ();

    fn handle(&mut self, Incoming(stream): Incoming, context: &mut Self::Context) {
        let local = network::local_address(&stream);
        let adopted = network::adopt(&stream, &self.settings);
        if let (Ok(local), Ok(())) = (local, adopted) {
            // The neighbour has given up one that waits already.
            self.waiting = Some(stream);
            self.handle_input(context, Input::Incoming(local));
        }
    }
}

impl Handler<Received> for Neighbour {
    type Result = ();

    fn handle(&mut self, Received { connection, bytes }: Received, context: &mut Self::Context) {
        if self
            .link
            .as_ref()
            .is_some_and(|link| link.connection == connection)
        {
            self.handle_input(context, Input::Received(&bytes));
        }
    }
}

impl Handler<Ended> for Neighbour {
    type Result = ();

    fn handle(&mut self, Ended { connection, why }: Ended, context: &mut Self::Context) {
        if self
            .link
            .as_ref()
            .is_some_and(|link| link.connection == connection)
        {
            self.link = None;
            self.handle_input(context, Input::Lost(&why));
        }
    }
}
