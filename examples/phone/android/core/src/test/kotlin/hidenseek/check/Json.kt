package hidenseek.check

/** JSON, enough to read the vectors: maps, lists, texts without exotic escapes, doubles, booleans and null. */
class Json private constructor(private val text: String) {
    private var at = 0

    private fun value(): Any? {
        val char = peek()
        return when {
            char == '{' -> sequence('}') { string().also { expect(':') } to value() }.toMap()
            char == '[' -> sequence(']') { value() }
            char == '"' -> string()
            text.startsWith("true", at) -> true.also { at += 4 }
            text.startsWith("false", at) -> false.also { at += 5 }
            text.startsWith("null", at) -> null.also { at += 4 }
            else -> number()
        }
    }

    private fun <T> sequence(end: Char, item: () -> T): List<T> {
        at++
        val found = ArrayList<T>()
        if (peek() == end) return found.also { at++ }
        while (true) {
            found += item()
            if (peek() == end) return found.also { at++ }
            expect(',')
        }
    }

    private fun string(): String {
        expect('"')
        val found = StringBuilder()
        while (text[at] != '"') {
            if (text[at] != '\\') {
                found.append(text[at++])
                continue
            }
            val escaped = text[at + 1]
            at += 2
            if (escaped == 'u') {
                found.append(text.substring(at, at + 4).toInt(16).toChar())
                at += 4
            } else {
                found.append(mapOf('n' to '\n', 't' to '\t')[escaped] ?: escaped)
            }
        }
        at++
        return found.toString()
    }

    private fun number(): Double {
        val end = (at until text.length).firstOrNull { text[it] !in "+-.0123456789eE" } ?: text.length
        return text.substring(at, end).toDouble().also { at = end }
    }

    private fun peek(): Char {
        while (text[at].isWhitespace()) at++
        return text[at]
    }

    private fun expect(char: Char) {
        check(peek() == char) { "'$char' expected at $at" }
        at++
    }

    companion object {
        fun parse(text: String): Any? = Json(text).value()
    }
}
