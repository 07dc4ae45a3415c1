; The loops of box_resize.py. A pixel is 32 bits, a byte for each channel and one that does not count.

; The average of each byte of two pixels, rounded up.
define internal i32 @average(i32 %one, i32 %other) alwaysinline {
  %either = or i32 %one, %other
  %differing = xor i32 %one, %other
  %halved = lshr i32 %differing, 1
  %half = and i32 %halved, 2139062143 ; 0x7F7F7F7F: no bit of the byte above
  %average = sub i32 %either, %half
  ret i32 %average
}

; out[y, x] = average(pixels[y, left[x]], pixels[y, right[x]]) for all lines
define void @average_columns(ptr noalias readonly %pixels, i64 %width, i64 %height,
                             ptr noalias readonly %left, ptr noalias readonly %right,
                             ptr noalias %out, i64 %out_width) {
entry:
  br label %line
line:
  %y = phi i64 [ 0, %entry ], [ %next_y, %line_end ]
  %start = mul i64 %y, %width
  %from = getelementptr i32, ptr %pixels, i64 %start
  %out_start = mul i64 %y, %out_width
  %to = getelementptr i32, ptr %out, i64 %out_start
  br label %pixel
pixel:
  %x = phi i64 [ 0, %line ], [ %next_x, %pixel ]
  %left_at = getelementptr i32, ptr %left, i64 %x
  %left_x = load i32, ptr %left_at, align 4
  %left_long = sext i32 %left_x to i64
  %one_at = getelementptr i32, ptr %from, i64 %left_long
  %one = load i32, ptr %one_at, align 4
  %right_at = getelementptr i32, ptr %right, i64 %x
  %right_x = load i32, ptr %right_at, align 4
  %right_long = sext i32 %right_x to i64
  %other_at = getelementptr i32, ptr %from, i64 %right_long
  %other = load i32, ptr %other_at, align 4
  %average = call i32 @average(i32 %one, i32 %other)
  %average_at = getelementptr i32, ptr %to, i64 %x
  store i32 %average, ptr %average_at, align 4
  %next_x = add nuw nsw i64 %x, 1
  %line_done = icmp eq i64 %next_x, %out_width
  br i1 %line_done, label %line_end, label %pixel
line_end:
  %next_y = add nuw nsw i64 %y, 1
  %done = icmp eq i64 %next_y, %height
  br i1 %done, label %end, label %line
end:
  ret void
}

; out[y, x] = average(pixels[upper[y], x], pixels[lower[y], x]) for all columns
define void @average_lines(ptr noalias readonly %pixels, i64 %width,
                           ptr noalias readonly %upper, ptr noalias readonly %lower,
                           ptr noalias %out, i64 %out_height) {
entry:
  br label %line
line:
  %y = phi i64 [ 0, %entry ], [ %next_y, %line_end ]
  %upper_at = getelementptr i32, ptr %upper, i64 %y
  %upper_y = load i32, ptr %upper_at, align 4
  %upper_long = sext i32 %upper_y to i64
  %above_start = mul i64 %upper_long, %width
  %above = getelementptr i32, ptr %pixels, i64 %above_start
  %lower_at = getelementptr i32, ptr %lower, i64 %y
  %lower_y = load i32, ptr %lower_at, align 4
  %lower_long = sext i32 %lower_y to i64
  %below_start = mul i64 %lower_long, %width
  %below = getelementptr i32, ptr %pixels, i64 %below_start
  %out_start = mul i64 %y, %width
  %to = getelementptr i32, ptr %out, i64 %out_start
  br label %pixel
pixel:
  %x = phi i64 [ 0, %line ], [ %next_x, %pixel ]
  %one_at = getelementptr i32, ptr %above, i64 %x
  %one = load i32, ptr %one_at, align 4
  %other_at = getelementptr i32, ptr %below, i64 %x
  %other = load i32, ptr %other_at, align 4
  %average = call i32 @average(i32 %one, i32 %other)
  %average_at = getelementptr i32, ptr %to, i64 %x
  store i32 %average, ptr %average_at, align 4
  %next_x = add nuw nsw i64 %x, 1
  %line_done = icmp eq i64 %next_x, %width
  br i1 %line_done, label %line_end, label %pixel
line_end:
  %next_y = add nuw nsw i64 %y, 1
  %done = icmp eq i64 %next_y, %out_height
  br i1 %done, label %end, label %line
end:
  ret void
}
