"""Workers: decode, letterbox, infer, select and draw, in processes of their own or on threads of this one."""
