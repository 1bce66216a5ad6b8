/** Lines of JSON in and out: the kernels in node. */
import { exercise } from "./exercise";
import { answerLines, loadKernels } from "./files";

const module = loadKernels();
await answerLines(async (line) => JSON.stringify(await exercise(module, JSON.parse(line))));
