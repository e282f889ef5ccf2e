//! Appending behind the caller's back: one thread writes, in order, what was
//! handed over, while the caller goes on. Bounded: who is more than a few
//! buffers ahead waits.
//!
//! An error is told to the next call, and to every later one: what was handed
//! over after it is not written.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, SyncSender},
    },
    thread::{self, JoinHandle},
};

use crate::medium::File;

/// Buffers that wait to be written.
const WAITING: usize = 4;

/// The thread, and the way to it.
#[derive(Debug)]
pub(crate) struct Behind {
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
    desk: Arc<Desk>,
}

/// What both sides see.
#[derive(Debug, Default)]
struct Desk {
    failed: Mutex<Option<io::Error>>,
    spares: Mutex<Vec<Vec<u8>>>,
}

#[derive(Debug)]
enum Job {
    Append(Arc<dyn File>, Vec<u8>),
    /// Everything before it was written, or failed.
    Mark(SyncSender<()>),
}

/// Resolves when everything that was handed over before is written.
#[derive(Debug)]
pub(crate) struct Written {
    mark: Receiver<()>,
    desk: Arc<Desk>,
}

impl Written {
    /// Waits.
    pub(crate) fn wait(&self) -> io::Result<()> {
        // The thread ends only after everything is written.
        let _ = self.mark.recv();
        self.desk.check()
    }
}

impl Behind {
    pub(crate) fn start() -> Self {
        let (jobs, queue) = mpsc::sync_channel(WAITING);
        let desk = Arc::new(Desk::default());
        let thread = {
            let desk = Arc::clone(&desk);
            thread::spawn(move || desk.work(&queue))
        };
        Self { jobs: Some(jobs), thread: Some(thread), desk }
    }

    /// Hands a buffer over, and gives an empty one for the next bytes.
    pub(crate) fn append(&self, file: &Arc<dyn File>, bytes: Vec<u8>) -> io::Result<Vec<u8>> {
        self.desk.check()?;
        self.send(Job::Append(Arc::clone(file), bytes));
        Ok(self.desk.spares().pop().unwrap_or_default())
    }

    /// A mark behind everything that was handed over so far.
    pub(crate) fn mark(&self) -> Written {
        let (told, mark) = mpsc::sync_channel(1);
        self.send(Job::Mark(told));
        Written { mark, desk: Arc::clone(&self.desk) }
    }

    fn send(&self, job: Job) {
        if let Some(jobs) = &self.jobs {
            // The thread ends only after this channel does.
            let _ = jobs.send(job);
        }
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        self.jobs.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Desk {
    fn work(&self, queue: &Receiver<Job>) {
        while let Ok(job) = queue.recv() {
            match job {
                Job::Append(file, mut bytes) => {
                    if self.check().is_ok()
                        && let Err(error) = file.append(&bytes)
                    {
                        self.failed().get_or_insert(error);
                    }
                    bytes.clear();
                    let mut spares = self.spares();
                    if spares.len() < WAITING {
                        spares.push(bytes);
                    }
                }
                // Nobody waits any more if the attempt was given up.
                Job::Mark(told) => drop(told.send(())),
            }
        }
    }

    fn check(&self) -> io::Result<()> {
        match &*self.failed() {
            None => Ok(()),
            Some(error) => Err(io::Error::new(error.kind(), error.to_string())),
        }
    }

    fn failed(&self) -> std::sync::MutexGuard<'_, Option<io::Error>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spares(&self) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
        self.spares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::medium::{
        Medium,
        simulated::{Fault, SimulatedMedium},
    };

    #[test]
    fn bytes_arrive_in_order_and_nothing_after_an_error() {
        let medium = SimulatedMedium::new(1);
        let file = medium.create("seg/1").unwrap();
        let behind = Behind::start();
        for number in 0..100_u8 {
            behind.append(&file, vec![number; 10]).unwrap();
        }
        behind.mark().wait().unwrap();
        let mut bytes = [0; 1000];
        file.read_at(&mut bytes, 0).unwrap();
        assert!(bytes.chunks(10).zip(0..).all(|(chunk, number)| chunk == [number; 10]));

        medium.plan_next(Fault::Io);
        behind.append(&file, vec![1; 10]).unwrap();
        let failed = behind.mark().wait().unwrap_err();
        assert_eq!(failed.to_string(), "simulated input/output error");
        assert!(behind.append(&file, vec![2; 10]).is_err());
        assert_eq!(file.length().unwrap(), 1000);
    }
}
