//! The stream of leases and shares: what was used and is wanted goes up at least once a second, at once when a call waits for a lease.

use crate::channel::{Backoff, Client, told as why};
use crate::thread::World;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tenon_contract::{LeaseRequest, LeaseResponse};
use tenon_limits::{Book, Registry};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

const REPORT_EVERY: Duration = Duration::from_secs(1);
/// Between two requests, however often the bell rings.
const GAP: Duration = Duration::from_millis(10);
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Requests on their way or being answered; more would only wait at the other end.
const UNANSWERED_MAX: usize = 4;
/// No answer for this long: try another connection.
const PATIENCE: Duration = Duration::from_secs(5);
/// For the last words of a process that stops.
const FAREWELL: Duration = Duration::from_secs(2);

/// Until `leaving` is told; then what is held goes back.
pub(crate) async fn lease_for_ever(world: Rc<World>, client: Client, registry: Arc<Registry>, mut leaving: oneshot::Receiver<()>) {
    let process_id = world.queue.borrow().process_id().text().to_string();
    let mut book = Book::new(registry.clone(), process_id);
    let mut backoff = Backoff::of_leases();
    let mut told = false;
    loop {
        while !is_needed(&world, &mut book) {
            tokio::select! {
                _ = &mut leaving => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = registry.bell.heard() => {}
            }
        }
        let mut talk = Talk::new(&world, &registry, &mut book);
        let Err(reason) = talk.hold(client.clone(), &mut leaving, &mut backoff).await else {
            return;
        };
        told = told && !talk.was_heard;
        book.disconnected();
        if !std::mem::replace(&mut told, true) {
            tracing::warn!("no leases and shares from the control plane: {reason}");
        }
        tokio::select! {
            _ = &mut leaving => return,
            () = backoff.pause() => {}
        }
    }
}

fn is_needed(world: &World, book: &mut Book) -> bool {
    for process_id in world.queue.borrow_mut().take_shipped_processes() {
        book.has_shipped(process_id.text().to_string());
    }
    book.is_needed()
}

type Answers = Streaming<LeaseResponse>;

/// One connection's talk.
struct Talk<'a> {
    world: &'a World,
    registry: &'a Registry,
    book: &'a mut Book,
    unanswered: usize,
    sent: Instant,
    heard: Instant,
    was_heard: bool,
}

impl<'a> Talk<'a> {
    fn new(world: &'a World, registry: &'a Registry, book: &'a mut Book) -> Self {
        let now = Instant::now();
        Self { world, registry, book, unanswered: 0, sent: now, heard: now, was_heard: false }
    }

    /// Ends with `Ok` when the process leaves, with the reason when the connection breaks.
    async fn hold(&mut self, mut client: Client, leaving: &mut oneshot::Receiver<()>, backoff: &mut Backoff) -> Result<(), String> {
        let (sender, receiver) = mpsc::channel(UNANSWERED_MAX * 2);
        self.book.connecting();
        // Said before the answer's head has come: some servers send it with the first answer.
        self.say(&sender);
        let mut call: Pin<Box<dyn Future<Output = Result<Response<Answers>, Status>>>> =
            Box::pin(async move { client.lease(Request::new(ReceiverStream::new(receiver))).await });
        let mut answers: Option<Answers> = None;
        loop {
            tokio::select! {
                begun = &mut call, if answers.is_none() => answers = Some(begun.map_err(|status| why(&status))?.into_inner()),
                answer = next(&mut answers) => {
                    let answer = answer.map_err(|status| why(&status))?.ok_or("the stream was ended")?;
                    backoff.succeeded();
                    self.hear(&answer);
                }
                () = self.time_to_say() => self.say(&sender),
                _ = &mut *leaving => {
                    let farewell = self.farewell(&sender, &mut answers);
                    // What is not heard is known when the log has shipped.
                    let _silence = tokio::time::timeout(FAREWELL, farewell).await;
                    return Ok(());
                }
            }
            if self.unanswered > 0 && self.heard.elapsed() > PATIENCE {
                return Err("no answer in time".to_owned());
            }
        }
    }

    /// Once a second; at once when the bell rings, as long as answers come.
    async fn time_to_say(&self) {
        let due = self.sent + REPORT_EVERY;
        if self.unanswered < UNANSWERED_MAX {
            tokio::select! {
                () = tokio::time::sleep_until(due.into()) => {}
                () = async {
                    tokio::time::sleep_until((self.sent + GAP).into()).await;
                    self.registry.bell.heard().await;
                } => {}
            }
        } else {
            tokio::time::sleep_until(due.into()).await;
        }
    }

    fn say(&mut self, sender: &mpsc::Sender<LeaseRequest>) {
        self.sent = Instant::now();
        if self.unanswered >= UNANSWERED_MAX {
            return;
        }
        if self.unanswered == 0 {
            self.heard = self.sent;
        }
        is_needed(self.world, self.book);
        let request = self.book.request(self.registry.micros(self.sent));
        self.unanswered += 1;
        // Room was counted; a closed channel shows as the broken call.
        let _closed = sender.try_send(request);
    }

    fn hear(&mut self, answer: &LeaseResponse) {
        self.heard = Instant::now();
        self.was_heard = true;
        self.unanswered = self.unanswered.saturating_sub(1);
        self.book.connected();
        for known in self.book.response(answer, self.registry.micros(self.heard)) {
            self.world.queue.borrow_mut().forget_process(&known);
        }
    }

    /// Gives back what is held, and what answers on their way still grant.
    async fn farewell(&mut self, sender: &mpsc::Sender<LeaseRequest>, answers: &mut Option<Answers>) {
        loop {
            match self.book.farewell(self.registry.micros(Instant::now())) {
                Some(request) => {
                    self.unanswered += 1;
                    if sender.send(request).await.is_err() {
                        return;
                    }
                }
                None if self.unanswered == 0 => return,
                None => {}
            }
            while self.unanswered > 0 {
                let Ok(Some(answer)) = next(answers).await else {
                    return;
                };
                self.hear(&answer);
            }
        }
    }
}

async fn next(answers: &mut Option<Answers>) -> Result<Option<LeaseResponse>, Status> {
    match answers {
        Some(answers) => answers.message().await,
        None => std::future::pending().await,
    }
}
