//! A set of small numbers, which indices of hosts are.

/// A set of indices below a length that is fixed when it is made. Two sets are combined only if they have the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bits(Box<[u64]>);

impl Bits {
    pub fn none(len: usize) -> Self {
        Self(vec![0; len.div_ceil(64)].into())
    }

    pub fn all(len: usize) -> Self {
        Self::those(len, |_| true)
    }

    /// The indices for which `chosen` is true.
    pub fn those(len: usize, mut chosen: impl FnMut(usize) -> bool) -> Self {
        let mut bits = Self::none(len);
        for index in 0..len {
            if chosen(index) {
                bits.insert(index);
            }
        }
        bits
    }

    pub fn insert(&mut self, index: usize) {
        if let Some(word) = self.0.get_mut(index / 64) {
            *word |= 1 << (index % 64);
        }
    }

    pub fn remove(&mut self, index: usize) {
        if let Some(word) = self.0.get_mut(index / 64) {
            *word &= !(1 << (index % 64));
        }
    }

    pub fn contains(&self, index: usize) -> bool {
        self.0
            .get(index / 64)
            .is_some_and(|word| word & (1 << (index % 64)) != 0)
    }

    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    pub fn and(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| a & b).collect())
    }

    /// The indices in ascending order.
    pub fn iter(&self) -> Indices<'_> {
        Indices {
            words: self.0.iter(),
            word: 0,
            base: 0,
            next_base: 0,
        }
    }
}

/// See [`Bits::iter`].
pub(super) struct Indices<'a> {
    words: std::slice::Iter<'a, u64>,
    word: u64,
    base: usize,
    next_base: usize,
}

impl Iterator for Indices<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        while self.word == 0 {
            self.word = *self.words.next()?;
            self.base = self.next_base;
            self.next_base += 64;
        }
        let bit = self.word.trailing_zeros();
        self.word &= self.word - 1;
        Some(self.base + bit as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_what_was_put_in() {
        let wanted = [0, 1, 63, 64, 127, 128, 199];
        let mut bits = Bits::those(200, |i| wanted.contains(&i));
        assert!(bits.iter().eq(wanted));
        assert!(bits.contains(127) && !bits.contains(126) && !bits.contains(5000));
        bits.remove(127);
        assert!(
            bits.and(&Bits::all(200))
                .iter()
                .eq([0, 1, 63, 64, 128, 199])
        );
        assert!(bits.and(&Bits::none(200)).is_empty());
        assert_eq!(Bits::all(200).iter().count(), 200);
        assert_eq!(Bits::all(0).iter().next(), None);
    }
}
