//! Questions of the admin API to all data cores: asked by letter, answered by letter, and gathered
//! here until all have come or the time is over.

use std::rc::Rc;

use crate::control::Control;
use crate::control::message::{Findings, Question, ToShard};
use crate::limits;

/// The answers that have come so far to the questions that wait.
#[derive(Debug, Default)]
pub(super) struct Inquiries {
    last: u64,
    /// By number of the question; each with the core that answered.
    open: Vec<(u64, Vec<(usize, Findings)>)>,
}

impl Inquiries {
    fn begin(&mut self) -> u64 {
        self.last += 1;
        self.open.push((self.last, Vec::new()));
        self.last
    }

    /// An answer that comes too late is dropped: nobody waits for it.
    pub(super) fn answered(&mut self, number: u64, core: usize, findings: Findings) {
        if let Some((_, answers)) = self.open.iter_mut().find(|(open, _)| *open == number) {
            answers.push((core, findings));
        }
    }

    fn count(&self, number: u64) -> usize {
        self.open.iter().find(|(open, _)| *open == number).map_or(0, |(_, answers)| answers.len())
    }

    fn end(&mut self, number: u64) -> Vec<(usize, Findings)> {
        let index = self.open.iter().position(|(open, _)| *open == number);
        let mut answers = index.map_or_else(Vec::new, |index| self.open.swap_remove(index).1);
        answers.sort_by_key(|(core, _)| *core);
        answers
    }
}

impl Control {
    /// What every core says, in their order; a core that is too busy to answer in time is missing.
    pub(crate) async fn ask(self: &Rc<Self>, question: Question) -> Vec<(usize, Findings)> {
        let number = self.inquiries.borrow_mut().begin();
        self.to_shards(|| ToShard::Question(number, question));
        let cores = self.counters.len();
        let all = |control: &Control| control.inquiries.borrow().count(number) >= cores;
        self.until(limits::ADMIN_INQUIRY_TIMEOUT, all).await;
        self.inquiries.borrow_mut().end(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_go_to_their_question_and_late_ones_nowhere() {
        let mut inquiries = Inquiries::default();
        let (first, second) = (inquiries.begin(), inquiries.begin());
        inquiries.answered(second, 1, Findings::Forgotten(0));
        inquiries.answered(first, 0, Findings::Forgotten(0));
        inquiries.answered(second, 0, Findings::Forgotten(0));
        assert_eq!((inquiries.count(first), inquiries.count(second)), (1, 2));
        let cores: Vec<usize> = inquiries.end(second).into_iter().map(|(core, _)| core).collect();
        assert_eq!(cores, [0, 1]);
        inquiries.answered(second, 2, Findings::Forgotten(0));
        assert_eq!(inquiries.end(second).len(), 0);
        assert_eq!(inquiries.open.len(), 1);
    }
}
