/** A ticket assembled for the kernels: structs, and all memory that training touches, put into one instance at load. */
import { WireError } from "../wire/errors";
import type { Training } from "../wire/messages";
import type { KeptLayer, Ticket } from "../wire/ticket";
import { placeBytes, planWorkspace, type Workspace } from "./arena";
import { BLOCK, CHUNK_FLOATS, codesFor, featureOffsets, OFFSET_BITS, type Codes } from "./codes";
import { makeSchedule } from "./lowering";
import type { Machine } from "./module";
import { Kind, lanesFor, pair, type Operation, type Schedule } from "./schedule";
import { NETWORK, OPERATION, RESULT, TENSOR, write } from "./structs";

const FUNCTIONS = { relu: 0, relu6: 1, hardswish: 2, gelu: 3 } as const; // network.h
type Fields = Record<string, number | readonly number[]>;

/** Addresses in the instance's memory; `order` is the ticket-order number of every score in kernel order. */
export interface Assembly {
  network: number;
  freeNetwork: number; // the same with `freeWeights`, of any size, instead of scores
  freeWeights: number;
  scores: number;
  logPrior: number;
  order: Int32Array;
  x: number; // a batch of samples, labels (int64), weights
  y: number;
  weights: number;
  logits: number;
  gradient: number; // of the scores
  result: number;
}

/**
 * @throws WireError if an activation is too large for the kernels.
 * @throws RangeError if the browser has too little memory.
 */
export function assemble(machine: Machine, ticket: Ticket, training: Training): Assembly {
  const width = Number(machine.run.hs_vector_width());
  const schedule = makeSchedule(ticket.plan, lanesFor(training.batch), width);
  const { lanes, tensors, operations } = schedule;
  const largest = Math.max(...tensors.map(({ geometry }) => geometry.positions * lanes));
  if (largest >= 2 ** OFFSET_BITS) throw new WireError(`plan '${ticket.plan.name}' has an activation too large here`);
  const workspace = planWorkspace(schedule);
  const { kept, plan } = ticket;
  const sample = plan.inputShape.reduce((a, b) => a * b, 1);
  const floats = (count: number) => machine.take(4 * count);

  const parts: Assembly = {
    network: machine.take(NETWORK.nbytes),
    freeNetwork: machine.take(NETWORK.nbytes),
    freeWeights: floats(kept),
    scores: floats(kept),
    logPrior: floats(plan.classes),
    order: new Int32Array(kept),
    x: floats(training.batch * sample),
    y: machine.take(8 * training.batch),
    weights: floats(training.batch),
    logits: floats(training.batch * plan.classes),
    gradient: floats(kept),
    result: machine.take(RESULT.nbytes),
  };
  const tensorsAt = machine.take(TENSOR.nbytes * tensors.length);
  const operationsAt = machine.take(OPERATION.nbytes * operations.length);
  const freeOperationsAt = machine.take(OPERATION.nbytes * operations.length);
  const adam = training.optimiser === "adam";
  const network: Fields = {
    lanes, classes: plan.classes, kept, operations: operations.length, tensors: tensors.length,
    logits: schedule.logits, ops: operationsAt, tensor: tensorsAt, workspace: machine.take(workspace.nbytes),
    workspaceFloats: workspace.nbytes / 4, classOffset: machine.take(8 * plan.classes), logPrior: parts.logPrior,
    scores: parts.scores, gradient: floats(kept), first: floats(kept), second: adam ? floats(kept) : 0,
    optimiser: adam ? 0 : 1, inputRelu: Number(schedule.inputRelu), learningRate: training.learningRate,
    beta1: training.beta1, beta2: training.beta2, epsilon: training.epsilon, clip: training.clip,
  };
  const filled = operations.map((operation, i) => operationFields(machine, ticket, schedule, workspace, operation, i, parts.order));

  // All memory is taken: views stay valid from here on.
  const view = machine.view;
  tensors.forEach((tensor, i) => {
    const { geometry, cut } = tensor;
    write(view, tensorsAt + i * TENSOR.nbytes, TENSOR, {
      value: workspace.values[i].offset / 4, gradient: gradientAt(workspace, i), plane: geometry.plane * lanes,
      pitch: geometry.pitch * lanes, interior: geometry.interior * lanes, channels: geometry.channels,
      height: geometry.height, width: geometry.width, cut: Number(cut),
    });
  });
  filled.forEach((fields, i) => {
    write(view, operationsAt + i * OPERATION.nbytes, OPERATION, fields);
    const free = operations[i].weights === null ? {} : { constant: 0, weights: parts.freeWeights + 4 * (fields["start"] as number) };
    write(view, freeOperationsAt + i * OPERATION.nbytes, OPERATION, { ...fields, ...free });
  });
  write(view, parts.network, NETWORK, network);
  write(view, parts.freeNetwork, NETWORK, { ...network, ops: freeOperationsAt });
  const last = tensors[schedule.logits].geometry;
  const offsets = featureOffsets(last);
  machine.i64(network["classOffset"] as number, plan.classes).set(
    Array.from({ length: plan.classes }, (_, k) => BigInt((offsets[k] - last.interior) * lanes)),
  );
  const fault = machine.run.hs_check(parts.network);
  if (fault) throw new Error(`the planned network does not fit its memory (check ${fault})`); // a bug of ours
  return parts;
}

function gradientAt({ gradients }: Workspace, tensor: number): number {
  const gradient = gradients[tensor];
  return gradient ? gradient.offset / 4 : -1;
}

function operationFields(
  machine: Machine, ticket: Ticket, schedule: Schedule, workspace: Workspace, planned: Operation, i: number,
  order: Int32Array,
): Fields {
  const { kind, input, second, output, relu, layer } = planned;
  const fields: Fields = { kind, input, second: second ?? -1, output, relu: Number(relu), extra: workspace.extras[i]?.offset ?? 0 };
  const sides = (name: string, [h, w]: [number, number]) => Object.assign(fields, { [`${name}H`]: h, [`${name}W`]: w });
  if ((kind === Kind.MAX_POOL || kind === Kind.AVERAGE_POOL) && (layer.kind === "maxpool" || layer.kind === "avgpool")) {
    sides("kernel", pair(layer.kernel, 1));
    sides("stride", pair(layer.stride, 1));
    fields["placeSize"] = placeBytes(layer);
  } else if (kind === Kind.PHASES && layer.kind === "conv") {
    sides("stride", pair(layer.stride, 1));
    sides("padding", pair(layer.padding, 0));
  } else if (kind === Kind.NORM && layer.kind === "norm") {
    fields["groups"] = layer.groups;
  } else if (kind === Kind.POINTWISE) {
    fields["function"] = FUNCTIONS[layer.kind as keyof typeof FUNCTIONS];
  }
  if (planned.weights === null) return fields;

  const kept = ticket.layers[planned.weights];
  const source = schedule.tensors[input].geometry;
  const target = schedule.tensors[output].geometry;
  const { lanes } = schedule;
  const whole = ((target.height - 1) * source.pitch + target.width) * lanes;
  const codes = codesFor(kept, source, lanes);
  codes.order.forEach((number, at) => (order[kept.start + at] = kept.start + number));
  return {
    ...fields,
    runs: planned.flat ? 1 : target.height, run: planned.flat ? whole : target.width * lanes,
    runIn: source.pitch * lanes, runOut: target.pitch * lanes, runChunk: CHUNK_FLOATS,
    ...weightFields(machine, ticket.constant, kept, codes),
  };
}

function weightFields(machine: Machine, constant: boolean, kept: KeptLayer, codes: Codes): Fields {
  const { block, rowStart, offsets, order } = codes;
  const count = order.length;
  const at = {
    rowStart: machine.take(4 * rowStart.length),
    code: machine.take(4 * offsets.length),
    initial: machine.take(offsets.length),
    magnitudes: constant ? 0 : machine.take(4 * count),
    weights: constant ? 0 : machine.take(4 * count),
  };
  machine.u32(at.rowStart, rowStart.length).set(rowStart);
  machine.u32(at.code, offsets.length).set(offsets.map((offset) => offset << 4));
  const initial = machine.u8(at.initial, offsets.length);
  order.forEach((number, i) => (initial[Math.floor(i / block)] |= kept.signs[number] << (i % block)));
  if (!constant) machine.f32(at.magnitudes, count).set(Float32Array.from(order, (number) => kept.magnitudes[number]));
  const scale = kept.magnitudes[0];
  return {
    ...at, block, rows: rowStart.length - 1, start: kept.start, kept: count, constant: Number(constant),
    scale: constant ? scale : 0, table: constant ? tableOf(block, scale) : [],
  };
}

/** The 4 weights of every value of a code's signs; of 4 rows bits 0 to 2 are relative to bit 3 (network.h). */
function tableOf(block: number, scale: number): number[] {
  return Array.from({ length: 64 }, (_, i) => {
    const code = i >> 2;
    const signs = block === BLOCK && !(code & 8) ? code ^ 7 : code;
    return (signs >> (i & 3)) & 1 ? scale : -scale;
  });
}
