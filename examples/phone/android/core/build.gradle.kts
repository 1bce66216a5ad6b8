plugins {
    id("org.jetbrains.kotlin.jvm")
}

kotlin {
    jvmToolchain(17)
}

// gradle :core:vectors    checks the core against the vectors of the wire format
tasks.register<JavaExec>("vectors") {
    classpath = sourceSets["test"].runtimeClasspath
    mainClass.set("hidenseek.check.VectorsKt")
    args(rootDir.resolve("../../../tests/golden/vectors-v2.json").path)
}
