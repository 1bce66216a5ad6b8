/// Dithered bits of scores: whether each lies above a threshold that both sides know (docs/wire-format.md).
public enum Dither {
    private static let top = 15 // the highest level of an announced mean score
    private static let between = 17 // thresholds between two levels
    private static let nearness = [3, 7, 15, 27, 47, 87, 127] // the distances from which on a bit is surer

    /// Scores that a round starts with.
    public static func startScores(_ votes: Votes, _ training: Training) -> [Float] {
        if training.dither == 0 { return votes.startScores(training.start) }
        let largest = Float(training.dither)
        return votes.mean().map { $0 * largest }
    }

    /// What is sent of scores: their signs, or whether they lie above the thresholds of the training with this `seed`.
    public static func signsOf(_ scores: [Float], _ training: Training, _ seed: UInt64) -> [Bool] {
        if training.dither == 0 { return scores.map { $0 >= 0 } }
        let scale = Float(1 / training.dither)
        let half: Float = 127.5
        return zip(scores, Prng.thresholds(seed, scores.count)).map { score, threshold -> Bool in
            let units = (score * scale + 1) * half // rounded to a Float at every step
            return units > Float(threshold) + 0.5
        }
    }

    /// What both sides know of a mask before it is sent.
    public static func known(_ votes: Votes, _ training: Training, _ seed: UInt64) -> Known {
        if training.dither == 0 { return votes }
        let drawn = Prng.thresholds(seed, votes.signs.count)
        let beyond = zip(votes.levels, drawn).map { level, threshold in between * level - threshold }
        let levels = beyond.map { beyond -> Int in
            let distance = beyond > 0 ? beyond - 1 : -beyond
            let sure = nearness.filter { distance >= $0 }.count
            return beyond > 0 ? top / 2 + 1 + sure : top / 2 - sure
        }
        return Expected(signs: beyond.map { $0 > 0 }, levels: levels)
    }

    private struct Expected: Known {
        let signs: [Bool]
        let levels: [Int]
    }
}
