//! Quorum arithmetic: has it been reached, can it still be, or never.
//!
//! A quorum has three answers. "Not yet" is not "never": a coordinator that mixes the two either
//! waits for replicas that have refused, or gives up while the last vote is on its way.

/// Where a vote stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Enough have confirmed.
    Won,
    /// Too few are left that could.
    Lost,
    /// Neither.
    Pending,
}

/// The count of one vote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Voters that have confirmed.
    pub confirmed: usize,
    /// Voters that have not answered, or have not been asked yet.
    pub open: usize,
}

impl Tally {
    /// Where the vote stands if `needed` must confirm.
    #[must_use]
    pub fn verdict(self, needed: usize) -> Verdict {
        if self.confirmed >= needed {
            Verdict::Won
        } else if self.confirmed + self.open < needed {
            Verdict::Lost
        } else {
            Verdict::Pending
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_vote_of_up_to_five_replicas_agrees_with_playing_it_to_its_end() {
        // The plain model: a vote is won if even the worst end wins it, lost if the best end
        // does not, and pending otherwise.
        for voters in 0..=5_usize {
            for confirmed in 0..=voters {
                for refused in 0..=voters - confirmed {
                    let open = voters - confirmed - refused;
                    for needed in 0..=voters + 1 {
                        let (worst, best) = (confirmed, confirmed + open);
                        let expected = match (worst >= needed, best >= needed) {
                            (true, _) => Verdict::Won,
                            (false, true) => Verdict::Pending,
                            (false, false) => Verdict::Lost,
                        };
                        assert_eq!(Tally { confirmed, open }.verdict(needed), expected);
                    }
                }
            }
        }
    }
}
