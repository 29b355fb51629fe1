import { z } from "zod";

/**
 * A stored object of which other versions may know more: fields that are not known here are kept
 * as they are. They are no part of the type, so nobody works with them.
 */
export function keptObject<Shape extends z.ZodRawShape>(
  shape: Shape,
): z.ZodType<z.output<z.ZodObject<Shape>>> {
  return z.looseObject(shape) as z.ZodType<z.output<z.ZodObject<Shape>>>;
}
