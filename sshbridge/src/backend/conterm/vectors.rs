//! The known answers and the recorded sessions, which were taken from real servers.

/// The hexadecimal word that follows `label` in `kat.txt`.
pub(crate) fn known(label: &str) -> Vec<u8> {
    hex(answer(label))
}

/// The word that follows `label` in `kat.txt`.
pub(crate) fn answer(label: &str) -> &'static str {
    let answers = include_str!("../../../tests/vectors/plan9/kat.txt");
    for line in answers.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let wanted: Vec<&str> = label.split(' ').collect();
        // A line may hold several answers after its first words: `passtokey 'x' des56 … des64 …`.
        let (last, first) = wanted.split_last().unwrap();
        if words.starts_with(first)
            && let Some(at) = words.iter().skip(first.len()).position(|word| word == last)
        {
            return words[first.len() + at + 1];
        }
    }
    panic!("no answer for {label}");
}

pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digits).collect()
}
