//! Shipping round by round, at the word of a caller, of a machine that anything
//! captures: for benchmarks and simulations. What [`task`](super::task) adds is
//! the schedule, libvirt, and being told about.

use domain::fault::Fault;
use wire::data::{Hello, Sealed};
use wire::replication::{CycleFigures, Shipping};

use super::course::{Course, Kept};
use super::folder::Courses;
use super::round::{Outcome, Portions, Round};
use super::sender::{Sender, Stream};
use crate::capture::{Capture, Wanted};

/// A machine and the connection to the keeper of its points.
pub struct Rounds<C> {
    duty: Shipping,
    capture: C,
    sender: Sender,
    course: Course,
    courses: Courses,
}

impl<C: Capture> Rounds<C> {
    /// Meets the keeper at the other end of `stream`, and goes on from the
    /// course that is kept.
    ///
    /// # Errors
    /// The keeper refuses or is gone.
    pub async fn meet(
        duty: Shipping,
        capture: C,
        courses: Courses,
        stream: Box<dyn Stream>,
    ) -> Result<Self, Fault> {
        let hello = Hello { protection: duty.protection.uuid(), generation: duty.generation };
        let (sender, welcome) = Sender::greet(stream, duty.target_name.clone(), hello).await?;
        let mut course = courses.read(duty.protection);
        course.machine = Some(duty.machine.uuid());
        course.meet(Kept::of(&welcome));
        Ok(Self { duty, capture, sender, course, courses })
    }

    /// One round, as a task makes it: its point, or none if the first copy is
    /// not done yet and goes on with the next round.
    ///
    /// # Errors
    /// Whatever went wrong; meet the keeper again.
    pub async fn round(&mut self) -> Result<Option<(Sealed, CycleFigures)>, Fault> {
        self.course.wish(self.duty.resynchronise);
        let round = Round {
            duty: &self.duty,
            capture: &mut self.capture,
            sender: &mut self.sender,
            course: &mut self.course,
            courses: &self.courses,
            wanted: Wanted::Crash,
            host: "source",
            portions: Portions::default(),
            limit: None,
            may_compare: true,
            progress: &|_| {},
            phase: &|_| {},
        };
        match round.run(async |_, _, _| ()).await? {
            (Outcome::Sealed { point, figures, .. }, _) => Ok(Some((point, figures))),
            (Outcome::Parted { .. } | Outcome::Held, _) => Ok(None),
        }
    }

    /// The next round compares everything with what the keeper has.
    pub fn resynchronise(&mut self) {
        self.duty.resynchronise = Some(uuid::Uuid::now_v7());
    }

    /// Says that it is still there: between rounds, every ten seconds or so.
    ///
    /// # Errors
    /// The keeper is gone.
    pub async fn idle(&mut self) -> Result<(), Fault> {
        self.sender.idle().await
    }
}
