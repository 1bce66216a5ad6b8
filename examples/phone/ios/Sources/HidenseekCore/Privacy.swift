import Foundation

/// Randomised response (Warner 1965): a device turns signs at random before it sends them. Its own network stays as it is.
///
/// A mask is turned once and sent again as it is: the mean of several answers to one question gives it away.
public enum Privacy {
    static let epsilons = 0.1...20.0
    private static let chances = 4_294_967_296.0 // a chance is a whole number of 2^-32, drawn in whole numbers

    /// Signs as they are sent: each turned with chance 1 / (1 + e^epsilon), independently; 0: none.
    ///
    /// `random` gives 32 bits; the system's own generator is a secure one.
    public static func randomise(
        _ signs: [Bool], epsilon: Double, random: () -> UInt32 = { UInt32.random(in: .min ... .max) }
    ) -> [Bool] {
        if epsilon == 0 { return signs }
        let below = UInt64((chances / (1 + exp(epsilon))).rounded(.up))
        return signs.map { $0 != (UInt64(random()) < below) }
    }
}
