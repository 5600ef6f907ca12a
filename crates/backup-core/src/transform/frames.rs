//! Blocks in order in, many of them in work at once, results in order out.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};

use super::Reader;
use crate::pipeline::thread;
use crate::{Error, ErrorKind, Result};

/// What a worker does with a block. It may change the block and even swap the two buffers; both
/// are recycled and hold old bytes when they arrive.
pub(super) type Work<T> = Box<dyn FnMut(T, &mut Vec<u8>, &mut Vec<u8>) -> Result<()> + Send>;

/// Cuts a stream into blocks with `feed` on one thread, works on them with `threads` more, each
/// with its own `Work` from `worker`, and gives the results back in order.
///
/// `feed` fills a recycled buffer and returns what a worker must know of the block, or `None` at
/// the end. Its error comes out unchanged after the results of all earlier blocks. A panic on any
/// of the threads is an error, never an end. Dropping the reader ends the threads after the call
/// that they are in.
///
/// At most [`blocks`] blocks and [`results`] results exist at a time.
pub(super) fn map<T: Send + 'static>(
    name: &str,
    threads: usize,
    feed: impl FnMut(&mut Vec<u8>) -> Result<Option<T>> + Send + 'static,
    mut worker: impl FnMut() -> Result<Work<T>>,
) -> Result<Reader> {
    let (jobs, queue) = mpsc::channel();
    let (order, ordered) = mpsc::channel();
    let (free_block, free_blocks) = mpsc::channel();
    let (free_result, free_results) = mpsc::channel();
    for _ in 0..blocks(threads) {
        let _ = free_block.send(Vec::new());
    }
    for _ in 1..results(threads) {
        let _ = free_result.send(Vec::new());
    }
    let stop = Arc::new(AtomicBool::new(false));
    let reader = Ordered {
        name: name.to_owned(),
        ordered,
        free_result,
        stop: Arc::clone(&stop),
        // The last of the results: it goes into the pool when the first real one arrives.
        result: Vec::new(),
        read: 0,
        outcome: None,
    };

    let queue = Arc::new(Mutex::new(queue));
    for n in 0..threads.max(1) {
        let crew = Worker {
            queue: Arc::clone(&queue),
            free_block: free_block.clone(),
            stop: Arc::clone(&stop),
            work: worker()?,
        };
        thread::spawn(&format!("{name}-{n}"), move || crew.run())?;
    }
    let feeder = Feeder {
        feed,
        free_blocks,
        free_results,
        jobs,
        order,
        stop,
    };
    thread::spawn(&format!("{name}-feed"), move || feeder.run())?;
    Ok(Box::new(reader))
}

/// One block per worker and one being filled.
pub(super) fn blocks(threads: usize) -> usize {
    threads.max(1) + 1
}

/// One result per worker, one waiting its turn and one being read.
pub(super) fn results(threads: usize) -> usize {
    threads.max(1) + 2
}

struct Job<T> {
    tag: T,
    block: Vec<u8>,
    result: Vec<u8>,
    done: Sender<Result<Vec<u8>>>,
}

enum Turn {
    Next(Receiver<Result<Vec<u8>>>),
    End,
    Fail(Error),
}

struct Feeder<T, F> {
    feed: F,
    free_blocks: Receiver<Vec<u8>>,
    free_results: Receiver<Vec<u8>>,
    jobs: Sender<Job<T>>,
    order: Sender<Turn>,
    stop: Arc<AtomicBool>,
}

impl<T, F: FnMut(&mut Vec<u8>) -> Result<Option<T>>> Feeder<T, F> {
    /// The channels have no bound of their own: there are only so many buffers. A closed one
    /// means that the reader was dropped or that a worker died, which the reader sees itself.
    fn run(mut self) {
        while let (Ok(result), Ok(mut block)) = (self.free_results.recv(), self.free_blocks.recv())
        {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let tag = match (self.feed)(&mut block) {
                Ok(Some(tag)) => tag,
                Ok(None) => {
                    let _ = self.order.send(Turn::End);
                    return;
                }
                Err(error) => {
                    let _ = self.order.send(Turn::Fail(error));
                    return;
                }
            };
            let (done, turn) = mpsc::channel();
            let job = Job {
                tag,
                block,
                result,
                done,
            };
            if self.order.send(Turn::Next(turn)).is_err() || self.jobs.send(job).is_err() {
                return;
            }
        }
    }
}

struct Worker<T> {
    queue: Arc<Mutex<Receiver<Job<T>>>>,
    free_block: Sender<Vec<u8>>,
    stop: Arc<AtomicBool>,
    work: Work<T>,
}

impl<T> Worker<T> {
    fn run(mut self) {
        while let Some(mut job) = self.next() {
            let outcome = (self.work)(job.tag, &mut job.block, &mut job.result);
            // Who no longer listens has been dropped.
            let _ = self.free_block.send(job.block);
            let _ = job.done.send(outcome.map(|()| job.result));
        }
    }

    fn next(&self) -> Option<Job<T>> {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let job = queue.recv().ok()?;
        (!self.stop.load(Ordering::Relaxed)).then_some(job)
    }
}

struct Ordered {
    name: String,
    ordered: Receiver<Turn>,
    free_result: Sender<Vec<u8>>,
    stop: Arc<AtomicBool>,
    result: Vec<u8>,
    read: usize,
    outcome: Option<Result<()>>,
}

impl Ordered {
    /// The next result; `None` at the end.
    fn next(&mut self) -> Result<Option<Vec<u8>>> {
        let died = |_| {
            Error::new(
                ErrorKind::Other,
                format!("a thread of stage {} panicked", self.name),
            )
        };
        match self.ordered.recv().map_err(died)? {
            Turn::Next(turn) => turn.recv().map_err(died)?.map(Some),
            Turn::End => Ok(None),
            Turn::Fail(error) => Err(error),
        }
    }
}

impl Read for Ordered {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.read == self.result.len() && !buffer.is_empty() {
            match &self.outcome {
                None => {}
                Some(Ok(())) => return Ok(0),
                Some(Err(error)) => return Err(error.duplicate().into()),
            }
            match self.next() {
                Ok(Some(result)) => {
                    let old = std::mem::replace(&mut self.result, result);
                    self.read = 0;
                    let _ = self.free_result.send(old);
                }
                Ok(None) => self.outcome = Some(Ok(())),
                Err(error) => {
                    self.outcome = Some(Err(error.duplicate()));
                    return Err(error.into());
                }
            }
        }
        let n = buffer.len().min(self.result.len() - self.read);
        buffer[..n].copy_from_slice(&self.result[self.read..][..n]);
        self.read += n;
        Ok(n)
    }
}

impl Drop for Ordered {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(last: u8) -> impl FnMut(&mut Vec<u8>) -> Result<Option<u8>> {
        let mut n = 0;
        move |block| {
            n += 1;
            *block = vec![n; 3];
            Ok((n <= last).then_some(n))
        }
    }

    fn copy() -> Result<Work<u8>> {
        Ok(Box::new(|_, block, result| {
            std::mem::swap(block, result);
            Ok(())
        }))
    }

    fn read_all(mut reader: Reader) -> (Vec<u8>, Result<()>) {
        let mut bytes = Vec::new();
        let outcome = reader.read_to_end(&mut bytes);
        (bytes, outcome.map(drop).map_err(Error::from))
    }

    #[test]
    fn results_come_in_the_order_of_blocks_though_work_ends_in_another() {
        let (second_done, wait) = mpsc::channel();
        let wait = Arc::new(Mutex::new(wait));
        let worker = || {
            let (second_done, wait) = (second_done.clone(), Arc::clone(&wait));
            Ok(
                Box::new(move |n: u8, block: &mut Vec<u8>, result: &mut Vec<u8>| {
                    match n {
                        1 => wait.lock().unwrap().recv().unwrap(),
                        2 => second_done.send(()).unwrap(),
                        _ => {}
                    }
                    std::mem::swap(block, result);
                    Ok(())
                }) as Work<u8>,
            )
        };
        let (bytes, outcome) = read_all(map("test", 2, numbers(5), worker).unwrap());
        outcome.unwrap();
        assert_eq!(bytes, [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5]);
    }

    #[test]
    fn more_blocks_than_buffers_never_wait_for_each_other() {
        for threads in [0, 1, 2, 5] {
            let (bytes, outcome) = read_all(map("test", threads, numbers(200), copy).unwrap());
            outcome.unwrap();
            assert_eq!(bytes.len(), 600);
        }
    }

    #[test]
    fn empty_results_do_not_use_buffers_up() {
        let nothing = || Ok(Box::new(|_: u8, _: &mut Vec<u8>, _: &mut Vec<u8>| Ok(())) as Work<u8>);
        let (bytes, outcome) = read_all(map("test", 2, numbers(200), nothing).unwrap());
        outcome.unwrap();
        assert!(bytes.is_empty());
    }

    #[test]
    fn an_error_comes_after_all_earlier_results() {
        let mut feed = numbers(9);
        let feed = move |block: &mut Vec<u8>| match feed(block)? {
            Some(4) => Err(Error::new(ErrorKind::Source, "disk on fire")),
            next => Ok(next),
        };
        let (bytes, outcome) = read_all(map("test", 2, feed, copy).unwrap());
        assert_eq!(bytes, [1, 1, 1, 2, 2, 2, 3, 3, 3]);
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Source);
    }

    #[test]
    fn a_panic_of_a_worker_is_an_error_and_not_an_end() {
        let worker = || {
            Ok(Box::new(|n: u8, _: &mut Vec<u8>, _: &mut Vec<u8>| {
                assert!(n < 3, "worker gives up, as this test wants");
                Ok(())
            }) as Work<u8>)
        };
        let (_, outcome) = read_all(map("test", 2, numbers(50), worker).unwrap());
        assert!(outcome.unwrap_err().to_string().contains("panicked"));
    }

    #[test]
    fn a_panic_of_the_input_is_an_error_and_not_an_end() {
        let mut feed = numbers(9);
        let feed = move |block: &mut Vec<u8>| {
            let next = feed(block)?;
            assert!(next < Some(3), "input gives up, as this test wants");
            Ok(next)
        };
        let (_, outcome) = read_all(map("test", 2, feed, copy).unwrap());
        assert!(outcome.unwrap_err().to_string().contains("panicked"));
    }
}
