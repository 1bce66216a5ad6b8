package hidenseek

import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.security.SecureRandom
import kotlin.math.ceil
import kotlin.math.exp

/**
 * Randomised response (Warner 1965): a device turns signs at random before it sends them. Its own network stays as it is.
 *
 * A mask is turned once and sent again as it is: the mean of several answers to one question gives it away.
 */
object Privacy {
    const val LEAST_EPSILON = 0.1
    const val MOST_EPSILON = 20.0
    private const val CHANCES = 4_294_967_296.0 // a chance is a whole number of 2^-32, drawn in whole numbers
    private val secure = SecureRandom()

    /** Signs as they are sent: each turned with chance 1 / (1 + e^epsilon), independently; 0: none. */
    fun randomise(
        signs: BooleanArray, epsilon: Double, random: (Int) -> ByteArray = { ByteArray(it).also(secure::nextBytes) },
    ): BooleanArray {
        if (epsilon == 0.0) return signs
        val below = ceil(CHANCES / (1 + exp(epsilon))).toLong()
        val words = ByteBuffer.wrap(random(4 * signs.size)).order(ByteOrder.LITTLE_ENDIAN)
        return BooleanArray(signs.size) { signs[it] != (words.int.toLong() and 0xFFFF_FFFFL < below) }
    }
}
