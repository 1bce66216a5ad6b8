// Gradle 8.13 or newer, JDK 17. Two modules: `core` is plain Kotlin, `phone` is an Android library with what needs one.
plugins {
    id("org.jetbrains.kotlin.jvm") version "2.2.20" apply false
    id("org.jetbrains.kotlin.android") version "2.2.20" apply false
    id("com.android.library") version "8.11.1" apply false
}
